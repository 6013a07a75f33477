"""The two models with the same weights give the same outputs and the same gradients, for every option."""

from __future__ import annotations

from typing import get_args, get_type_hints

import jax
import numpy as np
import pytest
import torch
from flax import nnx

from conversion import from_flax
from tests.random_weights import random_images, random_params
from tests.small_configs import COMBINATIONS, CONFIGS
from tests.vit_jax.models import jax_model, jax_output, nhwc, quick_jit
from tests.vit_torch.models import torch_model
from vit_spec import ViTConfig
from vit_spec.vit.config import FIELDS

# Unit roundoffs are 6.0e-8 and 1.1e-16. An output of order 1 passes some 10 roundings a block, so 1e-6 and 2e-15 are
# expected. Measured over all configs: 9.5e-7 and 3.2e-15 forward; gradients 1.2e-6 and 1.9e-15 relative to their norm.
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}
SEED = 11


def outputs(value: object) -> list[np.ndarray]:
    """One array, or the two of a distilled model in training."""
    return [np.asarray(part) for part in (value if isinstance(value, tuple) else (value,))]


@pytest.mark.parametrize(
    ("config", "dtype", "batch"),
    [
        *(pytest.param(config, "float64", 3, id=name) for name, config in CONFIGS.items()),
        *(
            pytest.param(config, dtype, batch, id=f"combined-{name}-{dtype}-{batch}")
            for name, config in COMBINATIONS.items()
            for dtype, batch in (("float32", 1), ("float64", 1))
        ),
    ],
)
def test_forward_agrees(config: ViTConfig, dtype: str, batch: int):
    """Every option by itself in float64; several together in both dtypes, for a batch of one. (For three, see the
    outputs of test_gradients_agree.)

    Oracle: each other; tests/numpy_reference.py is the one that neither of them is.
    """
    params, images = random_params(config, SEED), random_images(config, batch, SEED)
    with torch.no_grad():
        model = torch_model(config, params, getattr(torch, dtype)).eval()
        expected = model(torch.tensor(images, dtype=getattr(torch, dtype))).numpy()
    actual = jax_output(config, SEED, batch, dtype)
    assert actual.dtype == expected.dtype == np.dtype(dtype)
    assert 0.3 < np.abs(expected).max() < 10
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE[dtype])


def torch_gradients(
    model: torch.nn.Module, images: np.ndarray, dtype: str
) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
    """Outputs, and gradients of a fixed random linear function of them, by canonical name and ``images`` (NCHW)."""
    x = torch.tensor(images, dtype=getattr(torch, dtype), requires_grad=True)
    result = model(x)
    parts = result if isinstance(result, tuple) else (result,)
    loss = sum((part * torch.tensor(cotangent(part.shape, i)).to(part)).sum() for i, part in enumerate(parts))
    assert isinstance(loss, torch.Tensor)
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()} | {"images": x.grad}
    assert not [name for name, gradient in gradients.items() if gradient is None]
    return outputs(tuple(part.detach() for part in parts)), {
        name: gradient.numpy() for name, gradient in gradients.items() if gradient is not None
    }


def jax_gradients(model: nnx.Module, images: np.ndarray, dtype: str) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
    """The same from the JAX model."""
    graphdef, state = nnx.split(model)

    def loss(state: nnx.State, x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        result = nnx.merge(graphdef, state)(x, rngs=nnx.Rngs(0))
        parts = result if isinstance(result, tuple) else (result,)
        return sum((part * cotangent(part.shape, i).astype(dtype)).sum() for i, part in enumerate(parts)), parts

    run = quick_jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    (_, parts), (to_state, to_images) = run(state, nhwc(images, dtype))
    flat = {"/".join(map(str, path)): np.asarray(leaf.get_value()) for path, leaf in nnx.to_flat_state(to_state)}
    return outputs(parts), from_flax(flat) | {"images": np.asarray(to_images).transpose(0, 3, 1, 2)}


def cotangent(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def assert_gradients_agree(
    actual: dict[str, np.ndarray], expected: dict[str, np.ndarray], tolerance: float, *, turned: bool = False
):
    """Relative errors; ``turned``: keys have rotary positions, so that a shift common to them all turns differently."""
    assert actual.keys() == expected.keys()
    whole = np.sqrt(sum(np.sum(np.square(gradient, dtype=np.float64)) for gradient in expected.values()))
    for name, gradient in expected.items():
        norm = np.linalg.norm(gradient.ravel())
        if name.endswith("k_norm.bias") and not turned:
            # A shift common to all keys adds the same number to a query's logits, which the softmax removes.
            assert norm < tolerance * whole, name
            continue
        assert norm > 1e-4 * whole, f"{name} plays no part"
        error = np.linalg.norm((actual[name] - gradient).ravel()) / norm
        assert error < tolerance, f"{name}: relative error {error:.1e}"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", COMBINATIONS)
def test_gradients_agree(name: str, dtype: str):
    """With respect to the images and every parameter, in training mode (a distilled model has two outputs).

    Oracle: PyTorch's autograd. No gradient is zero, so no parameter and no option is idle.
    """
    config = COMBINATIONS[name]
    # With this seed no input of a ReLU lies within 1e-5 of zero, where float32 may not know the side.
    params, images = random_params(config, SEED + 1), random_images(config, 3, SEED + 1)
    expected_outputs, expected = torch_gradients(torch_model(config, params, getattr(torch, dtype)), images, dtype)
    with jax.enable_x64(dtype == "float64"):
        actual_outputs, actual = jax_gradients(jax_model(config, params, dtype), images, dtype)
    assert len(actual_outputs) == len(expected_outputs) == (2 if config.distilled else 1)
    for ours, theirs in zip(actual_outputs, expected_outputs, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE[dtype])
    assert_gradients_agree(actual, expected, TOLERANCE[dtype], turned=config.rotary is not None)


def test_the_configs_use_every_field_and_every_choice():
    """Fields that change no forward pass are named here; the drop rates have their own tests."""
    elsewhere = {"pos_embed_resize", "drop_rate", "attn_drop_rate", "drop_path_rate"}
    for configs in (CONFIGS, COMBINATIONS):
        used = {field: {getattr(config, field) for config in configs.values()} for field in FIELDS}
        assert {field for field, values in used.items() if len(values) > 1} | elsewhere == set(FIELDS)
        annotations = get_type_hints(ViTConfig)
        for field in FIELDS:
            choices = {choice for choice in get_args(annotations[field]) if isinstance(choice, str)}
            assert field in elsewhere or choices <= used[field], field


@pytest.mark.parametrize(
    ("with_option", "without"),
    [
        ("one-head", "plain"),
        ("gelu-tanh", "plain"),
        ("quick-gelu", "plain"),
        ("silu", "plain"),
        ("relu", "plain"),
        ("qk-scale", "plain"),
        ("norm-eps", "plain"),
        ("swiglu-gelu", "swiglu"),
        ("post-norm", "layer-scale"),
    ],
)
def test_options_without_parameters_of_their_own_change_the_output(with_option: str, without: str):
    """Oracle: the same weights in the model without the option. Options with parameters: test_gradients_agree.

    The smallest change, tanh for erf GELU in one block, moves these logits by 7.5e-5: above the tolerance of float32,
    so parity sees it.
    """
    params = random_params(CONFIGS[with_option], SEED)
    images = torch.tensor(random_images(CONFIGS[with_option], 1, SEED))
    with torch.no_grad():
        changed, plain = (torch_model(CONFIGS[name], params).eval()(images) for name in (with_option, without))
    assert (changed - plain).abs().max() > 5 * TOLERANCE["float32"]
