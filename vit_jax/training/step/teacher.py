"""Teachers of distillation: any weights that this project reads, of either framework, run in JAX."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np

import vit_jax
from vit_jax.inference.inference import Inference
from vit_jax.params import get_params
from vit_jax.training.recipe.config import Teacher as TeacherOptions
from vit_jax.training.step.update import Teacher
from vit_spec import Preprocessing, ViTConfig, VitportError


def load_teacher(options: TeacherOptions, student: ViTConfig, preprocessing: Preprocessing) -> Teacher | None:
    """The teacher of a run, ``None`` where it has none.

    Args:
        student: whose pictures and classes the teacher must take.
        preprocessing: of the student; pictures are given to the teacher as its own preprocessing would have them.

    Raises:
        VitportError: if the teacher does not fit the student.
    """
    if options.weights is None:
        return None
    import conversion

    checkpoint = conversion.prepare(options.name, weights=options.weights)
    config = checkpoint.config
    for name in ("image_size", "in_channels", "num_classes"):
        own, wanted = getattr(config, name), getattr(student, name)
        if own != wanted:
            raise VitportError(
                f"The teacher {options.weights} has {name} {own} and the student {wanted}: `vitport convert` changes "
                "sizes and heads, or take another teacher."
            )
    adapt = _between(preprocessing, checkpoint.preprocessing)
    model = vit_jax.create_model(weights=checkpoint)
    inference = Inference(model)
    return Teacher(get_params(model), lambda params, images: inference(params, adapt(images)))


def _between(student: Preprocessing, teacher: Preprocessing) -> Callable[[jax.Array], jax.Array]:
    """From pictures normalised for one to pictures normalised for the other."""
    scale = np.array(student.std, np.float32) / np.array(teacher.std, np.float32)
    shift = (np.array(student.mean, np.float32) - np.array(teacher.mean, np.float32)) / np.array(
        teacher.std, np.float32
    )
    if np.all(scale == 1) and np.all(shift == 0):
        return lambda images: images
    return lambda images: images * scale + shift
