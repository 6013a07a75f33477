"""Verification against faults that no shape shows, planted in the reading or the writing of a format.

Each fault is planted in both directions at once, so that reading the result back undoes what writing it did wrong. The
oracle is the fault itself: what was planted must be found, at its own layer, and nothing must be found where nothing
was planted.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

import conversion
from conversion.formats.vit import google
from conversion.tensors.transforms import Axes, Copy, Joined
from tests.random_weights import random_params
from vit_parity import Certificate, Original, Requested, verify
from vit_parity.certificate import stages
from vit_parity.ulp import ROUNDOFF
from vit_spec import Preprocessing, ViTConfig

CONFIG = ViTConfig(
    image_size=12, patch_size=4, num_classes=5, embed_dim=24, depth=2, num_heads=3, mlp_hidden_dim=24,
    activation="gelu_tanh", pos_embed_resize="scipy-zoom",
)  # fmt: skip
"""Every matrix of a block but the stacked one is square."""
WARM = Preprocessing(size=(12, 12), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), resize="squash")


def _source(folder, form: str, config: ViTConfig = CONFIG):
    checkpoint = conversion.Checkpoint.of(config, random_params(config, seed=1, dtype=np.float32), WARM)
    conversion.save(checkpoint, folder / "source", format=form, activation="keep")
    return folder / "source"


def _convert(source, to: str, dtype: str | None = None) -> Certificate:
    """As ``vitport convert --verify`` does it."""
    read = conversion.load(source, model=CONFIG)
    target = source.parent / "result"
    checkpoint = read if dtype is None else conversion.with_dtype(read, dtype)
    conversion.save(checkpoint, target, format=to, activation="keep")
    result = conversion.load(target, model=checkpoint.config)
    return verify(Original(source, read), target, result, Requested(dtype=dtype))


@pytest.mark.parametrize(
    ("form", "to"),
    [("google", "timm"), ("timm", "google"), ("timm", "huggingface"), ("huggingface", "big-vision"), ("timm", "flax")],
)
def test_a_sound_conversion_is_verified(form, to, tmp_path) -> None:
    if to == "big-vision":
        source = _source(tmp_path, form, CONFIG.replace(class_token=False, pool="avg", pos_embed="patch"))
    else:
        source = _source(tmp_path, form)
    proof = _convert(source, to)
    assert proof.passed, proof.verdict
    ways = {it.actual for it in proof.checks}
    assert ways == {
        "the result by its own names in float64", "PyTorch in float64", "PyTorch in float32", "JAX in float64",
        "JAX in float32", "the photograph as the result wants it",
    }  # fmt: skip
    assert {stage.name for stage in proof.checks[0].stages} == {"embed", "blocks.0", "blocks.1", "norm", "head"}
    assert {it.image for it in proof.checks} == {"noise", "a photograph"}


def _untransposed_proj(monkeypatch) -> None:
    """Square, so every shape is right."""
    monkeypatch.setattr(
        google.FromHeads, "to_canonical", lambda self, arrays: [arrays[0].reshape(-1, arrays[0].shape[-1])]
    )
    monkeypatch.setattr(
        google.FromHeads,
        "from_canonical",
        lambda self, arrays, config: [arrays[0].reshape(config.num_heads, config.head_dim, -1)],
    )


def _reordered(order: Callable[[np.ndarray], np.ndarray], back: Callable[[np.ndarray], np.ndarray]):
    """Plant another order of the rows of ``qkv`` in Google's heads and in joined layers."""

    def plant(monkeypatch) -> None:
        for kind in (google.Heads, Joined):
            true_read, true_write = kind.to_canonical, kind.from_canonical

            def read(self, arrays, true_read=true_read):
                return [order(array) if len(arrays) == 3 else array for array in true_read(self, arrays)]

            def write(self, arrays, config, true_write=true_write):
                stacked = [back(array) if len(array) == 3 * config.embed_dim else array for array in arrays]
                return true_write(self, stacked, config)

            monkeypatch.setattr(kind, "to_canonical", read)
            monkeypatch.setattr(kind, "from_canonical", write)

    return plant


def _swap_q_and_k(array: np.ndarray) -> np.ndarray:
    q, k, v = np.split(array, 3)
    return np.concatenate([k, q, v])


def _interleave(array: np.ndarray) -> np.ndarray:
    """Rows [q, k, v][head] to rows [head][q, k, v]."""
    return np.ascontiguousarray(array.reshape(3, 3, 8, -1).transpose(1, 0, 2, 3)).reshape(array.shape)


def _kernel(change: Callable[[np.ndarray], np.ndarray]):
    """Plant another order of the axes or channels of the patch kernel, which undoes itself."""

    def plant(monkeypatch) -> None:
        for kind in (Axes, Copy):
            true_read, true_write = kind.to_canonical, kind.from_canonical

            def read(self, arrays, true_read=true_read):
                return [change(array) if array.ndim == 4 else array for array in true_read(self, arrays)]

            def write(self, arrays, config, true_write=true_write):
                return true_write(self, [change(array) if array.ndim == 4 else array for array in arrays], config)

            monkeypatch.setattr(kind, "to_canonical", read)
            monkeypatch.setattr(kind, "from_canonical", write)

    return plant


FAULTS = {
    "square proj untransposed": (_untransposed_proj, "blocks.0"),
    "q and k swapped": (_reordered(_swap_q_and_k, _swap_q_and_k), "blocks.0"),
    "qkv head-major": (_reordered(_interleave, _interleave), "blocks.0"),
    "patch height and width swapped": (_kernel(lambda kernel: kernel.swapaxes(2, 3)), "embed"),
    "BGR for RGB": (_kernel(lambda kernel: kernel[:, ::-1]), "embed"),
}


@pytest.mark.parametrize(
    ("fault", "form", "to"),
    [
        (fault, *way)
        for fault in FAULTS
        for way in (("google", "timm"), ("timm", "google"), ("timm", "huggingface-vit"))
        if fault != "square proj untransposed" or "google" in way  # the others have PyTorch's axes
    ],
)
def test_a_planted_fault_is_found_at_its_layer(fault, form, to, tmp_path, monkeypatch) -> None:
    plant, stage = FAULTS[fault]
    source = _source(tmp_path, form)
    plant(monkeypatch)
    proof = _convert(source, to)
    assert proof.first_failure is not None
    assert proof.first_failure[1].name == stage
    assert f"first at {stage}" in proof.verdict


@pytest.mark.parametrize(
    ("field", "value", "stage"),
    [("norm_eps", 1e-5, "blocks.0"), ("activation", "gelu", "blocks.0"), ("num_heads", 6, "blocks.0")],
)
def test_a_fact_that_was_lost_is_found(field, value, stage, tmp_path, monkeypatch) -> None:
    """The result is read as another model than the source: what config.json would do that says something else."""
    source = _source(tmp_path, "timm")
    read = conversion.load(source)
    wrong = conversion.Checkpoint(read.config.replace(**{field: value}), read.preprocessing, read.params)
    conversion.save(wrong, tmp_path / "result", format="huggingface")
    result = conversion.load(tmp_path / "result")
    proof = verify(Original(source, read), tmp_path / "result", result)
    assert proof.first_failure is not None
    assert proof.first_failure[1].name == stage


def test_images_prepared_otherwise_are_found(tmp_path) -> None:
    """Mean and deviation in BGR order."""
    source = _source(tmp_path, "timm")
    read = conversion.load(source)
    swapped = read.preprocessing.replace(mean=read.preprocessing.mean[::-1], std=read.preprocessing.std[::-1])
    conversion.save(conversion.Checkpoint(read.config, swapped, read.params), tmp_path / "result", format="timm")
    proof = verify(Original(source, read), tmp_path / "result", conversion.load(tmp_path / "result"))
    assert proof.first_failure is not None
    assert proof.first_failure[1].name == "pixels"


def test_what_the_conversion_was_asked_for_is_asked_of_the_source_too(tmp_path) -> None:
    source = _source(tmp_path, "timm")
    assert _convert(source, "huggingface", dtype="float16").passed
    read = conversion.load(source)
    other = conversion.with_positions(conversion.with_activation(read, "erf"), "patch")
    conversion.save(other, tmp_path / "other", format="timm")
    requested = Requested(activation="gelu", positions=True)
    proof = verify(Original(source, read), tmp_path / "other", conversion.load(tmp_path / "other"), requested)
    assert proof.passed, proof.verdict


@pytest.mark.parametrize(("choice", "head"), [("drop", "dropped"), ("zero", "new")])
def test_another_head_leaves_the_rest_to_be_verified(choice, head, tmp_path) -> None:
    source = _source(tmp_path, "timm")
    read = conversion.load(source)
    changed = conversion.with_head(read, head=choice)
    conversion.save(changed, tmp_path / "result", format="timm")
    proof = verify(
        Original(source, read), tmp_path / "result", conversion.load(tmp_path / "result"), Requested(head=head)
    )
    assert proof.passed, proof.verdict
    assert ("head" in {stage.name for stage in proof.checks[0].stages}) == (head == "dropped")


def test_the_bound_is_the_one_that_the_certificate_states() -> None:
    """8 u sqrt(n) (k + 2), by hand: the longest sum has 48 terms, of the patches."""
    found = stages(
        {"embed": np.ones(3), "norm": np.ones(3)}, {"embed": np.ones(3), "norm": np.ones(3)}, CONFIG, "float64"
    )
    assert [stage.bound for stage in found] == [8 * 2**-53 * math.sqrt(48) * layers for layers in (2, 3)]
    assert ROUNDOFF["float32"] == np.finfo(np.float32).eps / 2


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_is_no_agreement(value) -> None:
    actual, reference = {"embed": np.array([value])}, {"embed": np.ones(1)}
    assert not stages(actual, reference, CONFIG, "float64")[0].passed


def test_another_shape_is_no_agreement() -> None:
    assert not stages({"head": np.ones((1, 4))}, {"head": np.ones((1, 5))}, CONFIG, "float64")[0].passed
