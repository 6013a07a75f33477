"""Swin Transformers in ``compare``: the replay is the model, and what is planted in PyTorch is said of the run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from tests.random_weights import random_images, random_params
from tests.small_configs import SWIN_BASE, SWIN_CONFIGS
from tests.vit_jax.models import jax_model
from tests.vit_torch.models import torch_model
from vit_parity import capture_jax, capture_torch
from vit_parity.capture import Capture
from vit_parity.explain import explain
from vit_parity.measure import relative
from vit_parity.points import activation_names
from vit_parity.replay import ReplayedModel, float64_params, replay
from vit_spec import SwinConfig
from vit_spec.swin.windows import Windowing, shift_regions
from vit_torch.layers.constant import make_constant
from vit_torch.swin import patch_merging, window_attention
from vit_torch.swin.window_attention import WindowAttention

BOTH = [
    SWIN_BASE.replace(
        version=version,
        image_size=(24, 32),
        depths=(2, 2, 2),
        num_heads=(2, 4, 8),
        window_sizes=((4, 4), (3, 4), (4, 4)),
    )
    for version in (1, 2)
]
"""Maps of 12 x 16, 6 x 8 and 3 x 4: multiples of the window, other windows, and a map smaller than the window."""
HEAD_WIDTH = 6


def images_of(config: SwinConfig) -> np.ndarray:
    return random_images(config, 2, 2).transpose(0, 2, 3, 1).astype(np.float32)


def weights_of(config: SwinConfig, seed: int = 1) -> dict[str, np.ndarray]:
    """The last head's logit scale beyond ln 100, the others below it."""
    params = random_params(config, seed, np.float32)
    for name in params:
        if name.endswith("logit_scale"):
            params[name] = np.minimum(params[name], np.float32(4))
            params[name][-1] = 5
    return params


def run(config: SwinConfig, params: dict[str, np.ndarray], change: Callable[[Any], None] | None = None) -> Capture:
    model = torch_model(config, params, torch.float32).eval()
    if change is not None:
        change(model)
    return capture_torch(model, images_of(config), "B")


def causes(found: Capture, config: SwinConfig, params: dict[str, np.ndarray]) -> list[set[str | None]]:
    """For each fault, all causes that fit."""
    told = explain(found, ReplayedModel(config, float64_params(params), found.images))
    return [{each.cause, *each.alternatives} for each in told]


@pytest.mark.parametrize("name", SWIN_CONFIGS)
def test_the_replay_is_the_model(name: str):
    """Oracle: the PyTorch model in float64, activation by activation. Measured 7.7e-16, version 2 4.0e-14."""
    config = SWIN_CONFIGS[name]
    params = random_params(config, 1)
    images = random_images(config, 2, 2).transpose(0, 2, 3, 1)
    found = capture_torch(torch_model(config, params).eval(), images).activations
    expected = replay(ReplayedModel(config, params, images), {})
    assert list(found) == list(expected) == list(activation_names(config))
    for activation, value in expected.items():
        assert relative(found[activation], value) < 1e-12, activation


def test_both_frameworks_are_observed_alike():
    config = SWIN_CONFIGS["swin-2-odd-maps"]
    params, images = weights_of(config), images_of(config)
    model = jax_model(config, params, "float32")
    model.eval()
    in_jax, in_torch = capture_jax(model, images).activations, run(config, params).activations
    assert list(in_jax) == list(in_torch)
    for name, value in in_torch.items():
        assert relative(in_jax[name], value) < 1e-4, name


@pytest.mark.parametrize("framework", ["torch", "jax"])
@pytest.mark.parametrize("config", BOTH, ids=["1", "2"])
def test_no_layer_of_a_float32_run_is_off_by_more_than_its_roundings(config: SwinConfig, framework: str):
    """Each layer by itself: the replay of it in float64, on the inputs that it had. Relative 2.4e-7 is four roundings;
    measured 1.3e-7. Larger differences of whole models are these, passed on."""
    params = weights_of(config)
    if framework == "torch":
        found = run(config, params)
    else:
        model = jax_model(config, params, "float32")
        model.eval()
        found = capture_jax(model, images_of(config))
    own = replay(ReplayedModel(config, float64_params(params), found.images), found.activations)
    for name, value in own.items():
        assert relative(found.activations[name], value) < 2.4e-7, name


def attentions(model: Any) -> list[WindowAttention]:
    return [module for module in model.modules() if isinstance(module, WindowAttention)]


def set_regions(module: WindowAttention, regions: Any) -> None:
    del module.regions
    module.regions = regions


def other_way(model: Any) -> None:
    for module in attentions(model):
        module.shift = (-module.shift[0], -module.shift[1])


def unshifted(model: Any) -> None:
    for module in attentions(model):
        module.shift = (0, 0)
        set_regions(module, None)


def unmasked(model: Any) -> None:
    for module in attentions(model):
        set_regions(module, None)


def even_blocks(model: Any) -> None:
    for even, odd in zip(attentions(model)[::2], attentions(model)[1::2], strict=True):
        regions = even.regions, odd.regions
        even.shift, odd.shift = odd.shift, even.shift
        set_regions(even, regions[1])
        set_regions(odd, regions[0])


def shift_kept(model: Any) -> None:
    for module in attentions(model)[1::2]:
        window = module.windowing.window
        module.shift = (window[0] // 2, window[1] // 2)
        windowing = Windowing(module.windowing.map_size, window, module.shift)
        set_regions(module, make_constant(shift_regions(windowing)))


def transposed(model: Any) -> None:
    for module in attentions(model):
        module.relative_bias = lambda own=module: WindowAttention.relative_bias(own).transpose(-2, -1)


def columns(model: Any) -> None:
    for module in attentions(model):
        height, width = module.windowing.window
        shares = [column * (2 * height - 1) + row for row in range(height) for column in range(width)]
        module.shares = make_constant(shares)


def norms_moved(model: Any) -> None:
    for blocks in model.segments():
        for block in blocks:
            block.post_norm = not block.post_norm


def no_sigmoid(model: Any) -> None:
    for module in attentions(model):
        first, act, last = module.cpb_mlp
        table = last(act(first(module.coordinates.float()))).detach()
        module._table = lambda table=table: table


PLANTED: dict[str, Callable[[Any], None]] = {
    "shifts windows the other way": other_way,
    "does not shift windows": unshifted,
    "leaves out the mask of shifted windows": unmasked,
    "shifts the windows of even blocks in place of odd ones": even_blocks,
    "shifts windows that are as large as the map": shift_kept,
    "indexes the relative position from the key to the query": transposed,
    "indexes the relative position column by column": columns,
}


@pytest.mark.parametrize("config", BOTH, ids=["1", "2"])
@pytest.mark.parametrize("cause", PLANTED)
def test_a_fault_of_windows_is_named(cause: str, config: SwinConfig):
    params = weights_of(config)
    found = causes(run(config, params, PLANTED[cause]), config, params)
    assert len(found) == 1, found
    assert cause in found[0]


@pytest.mark.parametrize("config", BOTH, ids=["1", "2"])
def test_moved_norms_are_named(config: SwinConfig):
    params = weights_of(config)
    found = causes(run(config, params, norms_moved), config, params)
    place, other = ("after", "before") if config.version == 1 else ("before", "after")
    assert found[0] == {f"norms {place} attention and MLP, not {other}"}


@pytest.mark.parametrize("config", BOTH, ids=["1", "2"])
@pytest.mark.parametrize(
    ("cause", "changes"),
    [
        ("uses tanh GELU", {"activation": "gelu_tanh"}),
        ("uses epsilon 1e-03", {"norm_eps": 1e-3}),
        ("uses epsilon 1e-03 in embedding and merging", {"patch_norm_eps": 1e-3}),
    ],
)
def test_an_option_is_named(cause: str, changes: dict[str, Any], config: SwinConfig):
    params = weights_of(config)
    found = causes(run(config.replace(**changes), params), config, params)
    assert len(found) == 1, found
    assert cause in found[0]


@pytest.mark.parametrize(
    ("cause", "right", "wrong"),
    [
        ("pads maps after the shift", {}, {"pad_order": "roll_pad"}),
        ("shrinks windows to the map along each axis", {"window_rule": "never"}, {"window_rule": "axis"}),
        ("shrinks windows to the shorter side", {"window_rule": "axis"}, {"window_rule": "min"}),
        ("pads maps that are smaller than the window (torch", {"window_rule": "axis"}, {"window_rule": "pad"}),
        ("and shifts them (the rule of detectors)", {"window_rule": "pad"}, {"window_rule": "never"}),
        ("normalises offsets by its own window", {"pretrained_window_sizes": 7}, {"pretrained_window_sizes": 0}),
        ("by a pretraining window of 12", {"pretrained_window_sizes": 7}, {"pretrained_window_sizes": 12}),
    ],
)
def test_another_config_is_named(cause: str, right: dict[str, Any], wrong: dict[str, Any]):
    """Version 2, whose weights fit every rule. Maps of 10 x 18 and 5 x 9, or of 6 x 18 and 3 x 9."""
    size = (20, 36) if "pad_order" in wrong else (12, 36)
    config = SWIN_BASE.replace(version=2, image_size=size, **right)
    params = weights_of(config)
    found = causes(run(config.replace(**wrong), params), config, params)
    assert len(found) == 1, found
    assert any(cause in (each or "") for each in found[0]), found


@pytest.mark.parametrize("config", BOTH, ids=["1", "2"])
def test_another_order_of_merging_is_named(config: SwinConfig, monkeypatch: pytest.MonkeyPatch):
    params, own = weights_of(config), patch_merging.merge

    def row_by_row(x: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        y = own(x, size)
        return y.reshape(*y.shape[:-1], 4, -1)[..., [0, 2, 1, 3], :].reshape(y.shape)

    monkeypatch.setattr(patch_merging, "merge", row_by_row)
    assert causes(run(config, params), config, params) == [{"merges patches row by row"}]


@pytest.mark.parametrize("config", BOTH, ids=["1", "2"])
def test_the_order_of_unfold_is_named(config: SwinConfig):
    """Column ``4 channel + 2 row + column``, as ``torch.nn.Unfold`` gives them, taken for ours."""
    params = weights_of(config)
    wrong = dict(params)
    for name, array in params.items():
        if ".downsample.reduction" in name or (config.version == 1 and ".downsample.norm" in name):
            C = array.shape[-1] // 4
            order = [(2 * column + row) * C + channel for channel in range(C) for row in (0, 1) for column in (0, 1)]
            wrong[name] = array[..., order]
    found = causes(run(config, wrong), config, params)
    assert found == [{"holds the weights of patch merging in the order of nn.Unfold"}]


def test_faults_of_cosine_attention_are_named(monkeypatch: pytest.MonkeyPatch):
    config = BOTH[1]
    params = weights_of(config)
    assert causes(run(config, params, no_sigmoid), config, params) == [{"leaves out 16 times the sigmoid of the bias"}]
    with monkeypatch.context() as patch:
        patch.setattr(window_attention, "MAX_LOGIT_SCALE", 99.0)
        assert causes(run(config, params), config, params) == [{"does not clamp the logit scale"}]
    with monkeypatch.context() as patch:
        patch.setattr(window_attention, "BIAS_RANGE", 1.0)
        assert causes(run(config, params), config, params) == [{"leaves out the factor 16 of the bias"}]
    monkeypatch.setattr(window_attention.functional, "normalize", lambda x, dim: x)
    assert causes(run(config, params), config, params) == [{"does not divide queries and keys by their lengths"}]
    wrong = {
        name: np.full_like(array, np.log(HEAD_WIDTH**-0.5)) if name.endswith("logit_scale") else array
        for name, array in params.items()
    }
    found = causes(run(config, wrong), config, params)
    assert found == [{"uses scaled dot products in place of cosines"}]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("config", BOTH, ids=["1", "2"])
def test_a_sound_run_is_accused_of_nothing(config: SwinConfig, seed: int):
    params = weights_of(config, seed)
    assert causes(run(config, params), config, params) == []


SEEDS = range(30)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("config", BOTH, ids=["1", "2"])
def test_random_sound_runs_are_accused_of_nothing(config: SwinConfig, seed: int):
    """With ``test_a_random_fault_is_located``, on random weights: 60 sound runs, 84 faults."""
    params = weights_of(config, 100 + seed)
    assert causes(run(config, params), config, params) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("config", BOTH, ids=["1", "2"])
@pytest.mark.parametrize("cause", PLANTED)
def test_a_random_fault_is_located(cause: str, config: SwinConfig, seed: int):
    params = weights_of(config, 200 + seed)
    found = causes(run(config, params, PLANTED[cause]), config, params)
    assert len(found) == 1, found
    assert cause in found[0]
