"""Losses of training in JAX. Oracle: torch's."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from vit_jax import training
from vit_jax.training.step import losses


@pytest.mark.parametrize("name", ["softmax", "sigmoid"])
def test_losses_on_soft_targets_are_torchs(name) -> None:
    rng = np.random.default_rng(0)
    logits, targets = rng.standard_normal((6, 5)).astype(np.float32), rng.dirichlet(np.ones(5), 6).astype(np.float32)
    found = losses.classification_loss(training.Loss(name=name), jnp.asarray(logits), jnp.asarray(targets))
    x, y = torch.tensor(logits), torch.tensor(targets)
    if name == "softmax":
        expected = torch.nn.functional.cross_entropy(x, y, reduction="none")
    else:
        expected = torch.nn.functional.binary_cross_entropy_with_logits(x, y, reduction="none").sum(dim=1)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_soft_distillation_is_torchs_divergence() -> None:
    rng = np.random.default_rng(0)
    student, teacher = rng.standard_normal((2, 6, 5)).astype(np.float32)
    options = training.Loss(distillation="soft", temperature=3.0)
    found = losses.distillation_loss(options, jnp.asarray(student), jnp.asarray(teacher))
    s, t = (torch.log_softmax(torch.tensor(x) / 3, dim=1) for x in (student, teacher))
    expected = torch.nn.functional.kl_div(s, t, reduction="none", log_target=True).sum(dim=1) * 9
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)  # of order 1; measured 7e-7, of logs times 9


def test_hard_distillation_is_the_cross_entropy_of_the_teachers_choice() -> None:
    rng = np.random.default_rng(0)
    student, teacher = rng.standard_normal((2, 6, 5)).astype(np.float32)
    options = training.Loss(distillation="hard", distillation_weight=0.5)
    targets = losses.soft_targets(jnp.arange(6) % 5, 5, 0.0)
    found = losses.total_loss(options, (jnp.asarray(student), jnp.asarray(student)), targets, jnp.asarray(teacher))
    x, cross_entropy = torch.tensor(student), torch.nn.functional.cross_entropy
    own = cross_entropy(x, torch.arange(6) % 5, reduction="none")
    expected = (own + cross_entropy(x, torch.tensor(teacher).argmax(1), reduction="none")) / 2
    np.testing.assert_allclose(found, expected, rtol=1e-5)
