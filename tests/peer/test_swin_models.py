"""Both of our Swin Transformers, and the maps that they and the ViT give out, beside timm's and torchvision's.

Oracles: timm, torchvision. In float64 version 2's coordinates are replaced by float64 ones, which both libraries
compute in float32; and factors on cosines stay below 100, where both clamp at a float32 value.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("timm", reason="the peer suite needs timm and torchvision: docs/testing.md")

import jax
import timm
from flax import nnx
from safetensors.torch import save_file

import conversion
import vit_jax
import vit_torch
from tests.cross.test_parity import assert_gradients_agree, jax_gradients, torch_gradients
from tests.peer.test_swin_formats import CONFIGS, TORCHVISION, exact, timms, torchvisions
from tests.random_weights import random_images, random_params
from tests.vit_jax.models import jax_model, nhwc, quick_jit
from tests.vit_torch.models import torch_model
from vit_spec import Config, SwinConfig, get_model

pytestmark = pytest.mark.peer
TOLERANCE = {"float64": 1e-12, "float32": 1e-5}
SEED = 3
CASES: dict[str, tuple[str, SwinConfig]] = {
    **{f"timm-{name}": ("timm", config) for name, config in CONFIGS.items()},
    **{f"torchvision-{name}": ("torchvision", config) for name, config in TORCHVISION.items()},
}
IN_FLOAT32 = ["timm-padded", "timm-v2", "torchvision-small", "torchvision-v2-small"]
Answers = dict[str, np.ndarray]


def weights(config: Config, most: float = 4.5) -> dict[str, np.ndarray]:
    found = random_params(config, SEED)
    return {name: np.minimum(x, most) if name.endswith("logit_scale") else x for name, x in found.items()}


def theirs(library: str, config: SwinConfig, folder: Path, most: float) -> Any:
    """Their model with our weights, in float64."""
    if library == "torchvision":
        conversion.save(conversion.Checkpoint.of(config, weights(config, most)), folder / "w.pth", format="torchvision")
        model = torchvisions(config)
        model.load_state_dict(torch.load(folder / "w.pth", weights_only=True))
        return model
    model = timms(config)
    model.load_state_dict({name: torch.tensor(x) for name, x in weights(config, most).items()})
    exact(model, config)
    return model


def in_jax(config: Config, params: dict[str, np.ndarray], dtype: str, run: Callable[[Any, Any], Any]) -> Any:
    """``run`` of our model and images, compiled."""
    with jax.enable_x64(dtype == "float64"):
        model = jax_model(config, params, dtype)
        model.eval()
        graphdef, state = nnx.split(model)
        images = nhwc(random_images(config, 2, SEED), dtype)
        return jax.tree.map(np.asarray, quick_jit(lambda state, x: run(nnx.merge(graphdef, state), x))(state, images))


def answers(model: Any, images: Any) -> dict[str, Any]:
    """Tokens, their mean, and logits, of ours."""
    tokens = model.forward_features(images)
    return {"tokens": tokens, "pooled": model.pool(tokens), "logits": model.forward_head(tokens)}


def their_answers(library: str, model: Any, images: torch.Tensor) -> Answers:
    if library == "timm":
        maps = model.forward_features(images)
        pooled = model.forward_head(maps, pre_logits=True)
    else:
        maps = model.norm(model.features(images))
        pooled = model.flatten(model.avgpool(model.permute(maps)))
    return {"tokens": maps.flatten(1, 2).numpy(), "pooled": pooled.numpy(), "logits": model(images).numpy()}


@pytest.mark.parametrize(
    ("name", "dtype"), [*((name, "float64") for name in CASES), *((name, "float32") for name in IN_FLOAT32)]
)
def test_features_and_logits_are_theirs(name: str, dtype: str, tmp_path: Path) -> None:
    """Every rule of windows in the library that has it: ``axis`` and ``never`` in timm, ``pad`` in torchvision; ``min``
    is that of transformers (tests/cross/test_swin_transformers.py). In float32 factors on cosines stay below 20.

    Measured in float64 5.6e-15 (version 1) and 3.5e-14 (version 2), in float32 2.4e-6, of values up to 4.
    """
    library, config = CASES[name]
    most = 4.5 if dtype == "float64" else 3.0
    images = torch.tensor(random_images(config, 2, SEED), dtype=getattr(torch, dtype))
    with torch.no_grad():
        expected = their_answers(library, theirs(library, config, tmp_path, most).to(images.dtype), images)
        params = weights(config, most)
        first = answers(torch_model(config, params, images.dtype).eval(), images)
    second = in_jax(config, params, dtype, answers)
    for key, right in expected.items():
        assert 0.3 < np.abs(right).max() < 20
        np.testing.assert_allclose(first[key].numpy(), right, rtol=0, atol=TOLERANCE[dtype])
        np.testing.assert_allclose(second[key], right, rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("name", ["timm-padded", "timm-v2-axis", "timm-v2-pretrained"])
def test_gradients_are_timms(name: str, tmp_path: Path) -> None:
    """Of the images and every parameter, relative to their norm; measured 1.7e-15 (version 1) and 5.2e-14."""
    library, config = CASES[name]
    params, images = weights(config), random_images(config, 2, SEED)
    _, expected = torch_gradients(theirs(library, config, tmp_path, 4.5), images, "float64")
    _, first = torch_gradients(torch_model(config, params).eval(), images, "float64")
    assert_gradients_agree(first, expected, 1e-10)
    with jax.enable_x64(True):
        model = jax_model(config, params)
        model.eval()
        _, second = jax_gradients(model, images, "float64")
    assert_gradients_agree(second, expected, 1e-10)


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("indices", [None, 1, [0]])
@pytest.mark.parametrize("name", ["timm-padded", "timm-v2-axis"])
def test_the_maps_of_stages_are_those_of_timms_forward_intermediates(
    name: str, indices: Any, norm: bool, tmp_path: Path
) -> None:
    """Measured 5.3e-15 (version 1) and 4.4e-14 (version 2) of values up to 10."""
    library, config = CASES[name]
    params, images = weights(config), torch.tensor(random_images(config, 2, SEED))
    with torch.no_grad():
        theirs_maps = theirs(library, config, tmp_path, 4.5).forward_intermediates(
            images, indices, norm=norm, intermediates_only=True
        )
        first = torch_model(config, params).eval().stages(images, indices, norm=norm)
    second = in_jax(config, params, "float64", lambda model, x: model.stages(x, indices, norm=norm))
    assert len(first) == len(second) == len(theirs_maps)
    for ours, other, right in zip(first, second, theirs_maps, strict=True):
        np.testing.assert_allclose(ours.numpy(), right.numpy(), rtol=0, atol=1e-12)
        np.testing.assert_allclose(other, right.permute(0, 2, 3, 1).numpy(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("indices", [2, [0, 3]])
def test_the_maps_of_a_vits_blocks_are_those_of_timm_and_of_dinov2s_interface(indices: Any, norm: bool) -> None:
    """timm's ``get_intermediate_layers`` is that of DINOv2's code: the last blocks or chosen ones, normed or not, with
    the prefix tokens beside them. Measured 6.2e-15 of values up to 7."""
    config = get_model("vit_tiny_patch16_224").config.replace(
        image_size=(32, 48), patch_size=8, depth=4, embed_dim=24, num_heads=3, register_tokens=2, pos_embed="patch",
        num_classes=5,
    )  # fmt: skip
    reference = timm.models.VisionTransformer(
        img_size=(32, 48), patch_size=8, depth=4, embed_dim=24, num_heads=3, reg_tokens=2, no_embed_class=True,
        num_classes=5,
    ).double().eval()  # fmt: skip
    params, images = random_params(config, SEED), torch.tensor(random_images(config, 2, SEED))
    reference.load_state_dict({name: torch.tensor(array) for name, array in params.items()})
    told: dict[str, Any] = {"norm": norm, "return_prefix_tokens": True}
    with torch.no_grad():
        maps = reference.forward_intermediates(images, indices, norm=norm, intermediates_only=True)
        pairs = reference.get_intermediate_layers(images, indices, reshape=True, **told)
        model = torch_model(config, params).eval()
        first = model.stages(images, indices, norm=norm)
        with_prefix = model.forward_intermediates(images, indices, intermediates_only=True, **told)
    second = in_jax(config, params, "float64", lambda model, x: model.stages(x, indices, norm=norm))
    for ours, other, right, (again, prefix), (mine, own) in zip(first, second, maps, pairs, with_prefix, strict=True):
        np.testing.assert_allclose(ours.numpy(), right.numpy(), rtol=0, atol=1e-12)
        np.testing.assert_allclose(other, right.permute(0, 2, 3, 1).numpy(), rtol=0, atol=1e-12)
        np.testing.assert_allclose(mine.numpy(), again.numpy(), rtol=0, atol=1e-12)
        np.testing.assert_allclose(own.numpy(), prefix.numpy(), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("size", "windows"),
    [((48, 64), (6, 6)), ((32, 64), (4, 8)), ((32, 32), [(4, 8), (2, 4)]), ((36, 44), [(5, 5), (3, 4)])],
)
def test_other_sizes_and_windows_are_those_that_timm_sets(size: Any, windows: Any, tmp_path: Path) -> None:
    """Oracle: ``set_input_size``, whose arithmetic of tables is in float32: 1e-7. Measured 2.2e-9 of up to 0.6."""
    config = CONFIGS["square"]
    model = timms(config)
    model.load_state_dict({name: torch.tensor(array) for name, array in weights(config).items()})
    save_file({name: x.contiguous() for name, x in model.state_dict().items()}, tmp_path / "w.safetensors")
    model.set_input_size(size, window_size=windows)
    images = torch.randn(2, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model(images).numpy()
    told: dict[str, Any] = {"weights": tmp_path / "w.safetensors", "image_size": size}
    per_stage = tuple(windows) if isinstance(windows, list) else (windows,) * config.num_stages
    found = vit_torch.create_model(config, **told, window_size=per_stage, dtype=torch.float64).eval()
    with torch.no_grad():
        np.testing.assert_allclose(found(images).numpy(), expected, rtol=0, atol=1e-7)
    with jax.enable_x64(True):
        other = vit_jax.create_model(config, **told, window_size=per_stage, dtype="float64", param_dtype="float64")
        other.eval()
        np.testing.assert_allclose(other(nhwc(images.numpy())), expected, rtol=0, atol=1e-7)
