"""Distillation from weights of another preprocessing.

Oracle: vit_jax's own model on the image as the teacher's preprocessing would have it.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import conversion
import vit_jax
from tests.random_weights import random_params
from vit_jax import training
from vit_jax.training.recipe.config import Teacher
from vit_jax.training.step.distillation import load_teacher
from vit_jax.training.step.update import prepare
from vit_spec import Preprocessing, ViTConfig, VitportError

pytestmark = pytest.mark.jax_alone

CONFIG = ViTConfig(image_size=8, patch_size=4, num_classes=5, embed_dim=16, depth=1, num_heads=2)
OF_STUDENT = Preprocessing(size=8)
OF_TEACHER = Preprocessing(size=8, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    params = random_params(CONFIG, seed=3, dtype=np.float32)
    conversion.save(conversion.Checkpoint.of(CONFIG, params, OF_TEACHER), path, format="timm")
    return str(path)


def test_the_teacher_sees_the_mixed_images_by_its_own_preprocessing(weights) -> None:
    teacher = load_teacher(Teacher(weights), CONFIG, OF_STUDENT)
    assert teacher is not None
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    recipe = training.Recipe(loss=training.Loss(mixup=0.5, distillation="soft"))
    batch = {"image": jnp.asarray(pixels), "label": jnp.arange(6) % 5, "index": jnp.arange(6)}
    found = prepare(batch, recipe, 5, OF_STUDENT, jax.random.key(0), lambda x: teacher.logits(teacher.params, x))
    mean, std = np.array(OF_STUDENT.mean, np.float32), np.array(OF_STUDENT.std, np.float32)
    mixed = np.asarray(found["image"]) * std + mean  # in [0, 1], as it was mixed
    assert np.abs(mixed - pixels / 255).max() > 0.05
    model = vit_jax.create_model(weights=weights)
    model.eval()
    expected = model(jnp.asarray((mixed - np.array(OF_TEACHER.mean)) / np.array(OF_TEACHER.std), jnp.float32))
    # measured 2e-6 of logits up to 3
    np.testing.assert_allclose(found["teacher"], expected, atol=2e-5)


def test_a_run_without_a_teacher_has_none() -> None:
    assert load_teacher(Teacher(), CONFIG, OF_STUDENT) is None


@pytest.mark.parametrize(
    ("student", "sentence"),
    [
        (CONFIG.replace(num_classes=4), "has num_classes 5, and the student 4"),
        (CONFIG.replace(image_size=16), "has image_size"),
    ],
)
def test_a_teacher_that_does_not_fit_is_one_sentence(student, sentence, weights) -> None:
    with pytest.raises(VitportError, match=sentence):
        load_teacher(Teacher(weights), student, OF_STUDENT)
