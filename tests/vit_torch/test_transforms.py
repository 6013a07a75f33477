"""The model under PyTorch's transformations: the oracle is the plain call of the same model."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.random_weights import random_images, random_params
from tests.small_configs import BASE, COMBINATIONS, CONFIGS, SWIN_BASE, SWIN_CONFIGS
from tests.vit_torch.models import torch_model
from vit_spec import Config, VitportError
from vit_torch import attend_fused, set_attention
from vit_torch.layers.attention import attend
from vit_torch.model import VisionModel

DROPPED: dict[str, Any] = {"drop_rate": 0.2, "attn_drop_rate": 0.2, "drop_path_rate": 0.2}
DROPS = BASE.replace(depth=4, layer_scale=1.0, **DROPPED)
MODELS: dict[str, Config] = {
    "vit": BASE, "swin": SWIN_CONFIGS["swin-odd-maps-roll-pad"], "swin-2": SWIN_CONFIGS["swin-2-odd-maps"]
}  # fmt: skip
EVERY = {**CONFIGS, **{f"combined-{name}": config for name, config in COMBINATIONS.items()}, **SWIN_CONFIGS}


def model_and_images(config: Config = BASE) -> tuple[VisionModel, torch.Tensor]:
    return torch_model(config, random_params(config, 0)).eval(), torch.tensor(random_images(config, 3, 1))


@pytest.mark.parametrize(
    ("config", "kernel"),
    [
        *(pytest.param(config, attend, id=name) for name, config in EVERY.items()),
        *(pytest.param(config, attend_fused, id=f"fused-{name}") for name, config in MODELS.items()),
    ],
)
def test_symbolic_tracing_gives_the_same_function(config: Config, kernel: Callable[..., torch.Tensor]):
    model, images = model_and_images(config)
    set_attention(model, kernel)
    traced = torch.fx.symbolic_trace(model)
    assert any(node.op == "call_module" for node in traced.graph.nodes)
    assert torch.equal(traced(images), model(images))


def test_a_traced_model_still_refuses_images_of_another_shape():
    model, images = model_and_images()
    traced = torch.fx.symbolic_trace(model)
    with pytest.raises(VitportError, match="made for 12x20"):
        traced(images.transpose(2, 3))


@pytest.mark.parametrize("name", ["vit", "swin", pytest.param("swin-2", marks=pytest.mark.slow)])
def test_an_exported_model_gives_the_same_function_for_any_batch(name: str, tmp_path: Path):
    """Written, read back, and called with another number of images."""
    model, images = model_and_images(MODELS[name])
    batch = torch.export.Dim("batch")
    torch.export.save(torch.export.export(model, (images,), dynamic_shapes=({0: batch},)), tmp_path / "model.pt2")
    loaded = torch.export.load(tmp_path / "model.pt2").module()
    torch.testing.assert_close(loaded(images[:2]), model(images[:2]), rtol=0, atol=1e-13)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize("name", MODELS)
def test_a_compiled_model_gives_the_same_function_and_gradients(backend: str, name: str):
    """As one graph, without a break; to rounding in float64."""
    model, images = model_and_images(MODELS[name])
    expected, slopes = model(images), {key: slope.clone() for key, slope in gradients(model, images).items()}
    torch.compiler.reset()
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    torch.testing.assert_close(compiled(images), expected, rtol=0, atol=1e-12)
    found = {key.removeprefix("_orig_mod."): slope for key, slope in gradients(compiled, images).items()}
    assert found.keys() == slopes.keys() == dict(model.named_parameters()).keys()
    for key, slope in found.items():
        torch.testing.assert_close(slope, slopes[key], rtol=1e-9, atol=1e-11, msg=key)


@pytest.mark.parametrize("name", MODELS)
def test_the_model_is_vectorised_by_vmap(name: str):
    """Over images, one at a time; to rounding in float64."""
    model, images = model_and_images(MODELS[name])
    with torch.no_grad():
        actual = torch.vmap(lambda image: model(image[None])[0])(images)
        torch.testing.assert_close(actual, model(images), rtol=0, atol=1e-12)


def gradients(model: torch.nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    model.zero_grad()
    logits = model(images)
    assert isinstance(logits, torch.Tensor)
    logits.square().sum().backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def saved_bytes(model: VisionModel, images: torch.Tensor) -> int:
    """Bytes of distinct tensors, other than the parameters, that the forward pass keeps for the backward pass."""
    kept: dict[int, int] = {}
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model(images)
    assert output is not None  # alive, so that no storage's address is used twice
    return sum(kept.values())


@pytest.mark.parametrize(
    "config",
    [DROPS, *(SWIN_BASE.replace(version=version, depths=(4, 4), **DROPPED) for version in (1, 2))],
    ids=["vit", "swin", "swin-2"],
)
def test_checkpointing_keeps_the_gradients_and_less_memory(config: Config):
    """Dropout included, whose random state is restored; less than a third of the bytes: measured 0.09 of a ViT's."""
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


def test_checkpointing_changes_no_answer_and_no_state():
    model, images = model_and_images(DROPS)
    before, names = model(images), list(model.state_dict())
    model.set_grad_checkpointing()
    assert torch.equal(model(images), before)
    assert list(model.state_dict()) == names
    assert model.forward_intermediates(images, 1)[0].grad_fn is not None


def test_autocast_computes_in_bfloat16():
    """Oracle: the same model in float32; a token passes some 30 roundings of 0.0016, as in
    ``test_bfloat16_error_against_float64``."""
    model, images = model_and_images()
    model, images = model.float(), images.float()
    exact = model(images)
    with torch.autocast("cpu", torch.bfloat16):
        actual = model(images)
    assert actual.dtype == torch.bfloat16
    assert (actual.float() - exact).norm() / exact.norm() < 0.018


@pytest.fixture
def one_process(tmp_path: Path) -> Iterator[None]:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize("name", MODELS)
def test_data_parallel_training_gives_the_same_gradients(name: str):
    model, images = model_and_images(MODELS[name])
    alone = gradients(copy.deepcopy(model), images)
    parallel = torch.nn.parallel.DistributedDataParallel(model)
    parallel(images).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, alone[name], rtol=1e-12, atol=1e-12)
