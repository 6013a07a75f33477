"""Swin Transformers under PyTorch's transformations: the oracle is the plain call of the same model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.random_weights import random_images, random_params
from tests.small_configs import SWIN_CONFIGS
from tests.vit_torch.models import torch_model
from tests.vit_torch.test_transforms import gradients, saved_bytes
from vit_spec import SwinConfig
from vit_torch import attend_fused, set_attention
from vit_torch.layers.attention import attend
from vit_torch.model import VisionModel

BOTH = ["swin-odd-maps-roll-pad", "swin-2-odd-maps"]


def model_and_images(config: SwinConfig) -> tuple[VisionModel, torch.Tensor]:
    return torch_model(config, random_params(config, 0)).eval(), torch.tensor(random_images(config, 3, 1))


@pytest.mark.parametrize(
    ("name", "kernel"), [*((name, attend) for name in SWIN_CONFIGS), *((name, attend_fused) for name in BOTH)]
)
def test_symbolic_tracing_gives_the_same_function(name: str, kernel: Callable[..., torch.Tensor]):
    model, images = model_and_images(SWIN_CONFIGS[name])
    set_attention(model, kernel)
    traced = torch.fx.symbolic_trace(model)
    assert any(node.op == "call_module" for node in traced.graph.nodes)
    assert torch.equal(traced(images), model(images))


@pytest.mark.parametrize("name", [BOTH[0], pytest.param(BOTH[1], marks=pytest.mark.slow)])
def test_an_exported_model_gives_the_same_function_for_any_batch(name: str, tmp_path: Path):
    """Written, read back, and called with another number of images. Measured 0 and 0."""
    model, images = model_and_images(SWIN_CONFIGS[name])
    batch = torch.export.Dim("batch")
    torch.export.save(torch.export.export(model, (images,), dynamic_shapes=({0: batch},)), tmp_path / "model.pt2")
    loaded = torch.export.load(tmp_path / "model.pt2").module()
    torch.testing.assert_close(loaded(images[:2]), model(images[:2]), rtol=0, atol=1e-13)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize("name", BOTH)
def test_a_compiled_model_gives_the_same_function_and_gradients(backend: str, name: str):
    """As one graph, without a break. Measured 0."""
    model, images = model_and_images(SWIN_CONFIGS[name])
    expected, slopes = model(images), {key: slope.clone() for key, slope in gradients(model, images).items()}
    torch.compiler.reset()
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    torch.testing.assert_close(compiled(images), expected, rtol=0, atol=1e-12)
    for key, slope in gradients(compiled, images).items():
        torch.testing.assert_close(slope, slopes[key.removeprefix("_orig_mod.")], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("version", [1, 2])
def test_checkpointing_keeps_the_gradients_and_less_memory(version: int):
    """Dropout included, whose random state is restored; less than a third of the bytes: measured 0."""
    config = SWIN_CONFIGS["swin"].replace(
        version=version, depths=(4, 4), drop_rate=0.2, attn_drop_rate=0.2, drop_path_rate=0.2
    )
    model, images = model_and_images(config)
    model.train()
    plain, bytes_plain = gradients(model, images), saved_bytes(model, images)
    plain = {name: gradient.clone() for name, gradient in plain.items()}
    model.set_grad_checkpointing()
    again, bytes_again = gradients(model, images), saved_bytes(model, images)
    assert again.keys() == plain.keys() == dict(model.named_parameters()).keys()
    for name, gradient in again.items():
        torch.testing.assert_close(gradient, plain[name], rtol=1e-12, atol=1e-12)
    assert bytes_again < bytes_plain / 3
    model.set_grad_checkpointing(False)
    assert saved_bytes(model, images) == bytes_plain


@pytest.mark.parametrize("name", BOTH)
def test_the_model_is_vectorised_by_vmap(name: str):
    """Over images, one at a time. Measured 0 and 0."""
    model, images = model_and_images(SWIN_CONFIGS[name])
    with torch.no_grad():
        actual = torch.vmap(lambda image: model(image[None])[0])(images)
        torch.testing.assert_close(actual, model(images), rtol=0, atol=1e-12)
