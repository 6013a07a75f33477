"""Teachers for distillation: any weights that this project reads, of either framework, run in JAX."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np

import vit_jax
from vit_jax.inference.inference import Inference
from vit_jax.params import get_params
from vit_jax.training.recipe.config import Teacher as TeacherOptions
from vit_jax.training.step.update import Teacher
from vit_spec import Config, Preprocessing, VitportError


def load_teacher(options: TeacherOptions, student: Config, preprocessing: Preprocessing) -> Teacher | None:
    """The teacher of a run, or ``None``.

    Args:
        student: the teacher must have the same image size, channels and classes.
        preprocessing: of the student; images are normalised again for the teacher.

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
                f"The teacher {options.weights} has {name} {own}, and the student {wanted}: change it with `vitport "
                "convert`, or choose another teacher."
            )
    adapt = _renormalised(preprocessing, checkpoint.preprocessing)
    model = vit_jax.create_model(weights=checkpoint)
    inference = Inference(model)
    return Teacher(get_params(model), lambda params, images: inference(params, adapt(images)))


def _renormalised(student: Preprocessing, teacher: Preprocessing) -> Callable[[jax.Array], jax.Array]:
    """From images normalised for the student to images normalised for the teacher."""
    scale = np.array(student.std, np.float32) / np.array(teacher.std, np.float32)
    shift = (np.array(student.mean, np.float32) - np.array(teacher.mean, np.float32)) / np.array(
        teacher.std, np.float32
    )
    if np.all(scale == 1) and np.all(shift == 0):
        return lambda images: images
    return lambda images: images * scale + shift
