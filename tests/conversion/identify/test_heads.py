"""Heads that people put in a classifier's place. Oracle: the features by tests/numpy_reference.py, through torch's own
head; transformers' classes.

Tolerance 1e-12 of the largest output: float64 rounding, measured at most 1e-15.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from torch import nn

import conversion
import vit_torch
from tests import numpy_reference
from tests.random_weights import random_images, random_params
from vit_parity.semantics import semantics_of_file
from vit_spec import ViTConfig, VitportError

CONFIG = ViTConfig(image_size=(8, 16), patch_size=4, embed_dim=24, depth=2, num_heads=3, num_classes=0)
PARAMS = random_params(CONFIG, seed=1)
IMAGES = random_images(CONFIG, 2, seed=2)
TOLERANCE = 1e-12
LINEAR = nn.Linear(24, 5, dtype=torch.float64)
BARE = nn.Linear(24, 5, bias=False, dtype=torch.float64)


def _body(prefix: str = "") -> dict[str, torch.Tensor]:
    return {prefix + name: torch.from_numpy(array.astype(np.float64)) for name, array in PARAMS.items()}


def _head(at: str, head: nn.Module) -> dict[str, torch.Tensor]:
    return {f"{at}.{name}": tensor for name, tensor in head.state_dict().items()}


def _expected(head: nn.Module, images: np.ndarray = IMAGES) -> np.ndarray:
    arrays = {name: array.astype(np.float64) for name, array in PARAMS.items()}
    features = numpy_reference.forward(CONFIG, arrays, images)
    with torch.no_grad():
        return head(torch.from_numpy(features)).numpy()


def _assert_answers(path: Path, expected: np.ndarray) -> conversion.Checkpoint:
    """As loaded, and by the file's own names."""
    config = CONFIG.replace(num_classes=5)
    checkpoint = conversion.load(path, model=config)
    assert checkpoint.config == config
    loaded = numpy_reference.forward(config, dict(checkpoint.params), IMAGES)
    own = semantics_of_file(path, config).run(IMAGES.transpose(0, 2, 3, 1))["head"]
    for found in (loaded, own):
        assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()
    return checkpoint


WRAPPERS = {
    "head.1": LINEAR,
    "head": nn.Sequential(nn.Dropout(), nn.Flatten(), LINEAR).eval(),
    "head.fc": LINEAR,
    "head.drop.fc": LINEAR,
    "fc": LINEAR,
    "last_linear": LINEAR,
    "classifier.1": BARE,
    "classifier": LINEAR,
    "heads.head.0": LINEAR,
    "output_projection": LINEAR,
    "mlp_head.1": LINEAR,
    "cls_head": LINEAR,
    "linear_head.linear": BARE,
}


@pytest.mark.parametrize("at", list(WRAPPERS))
def test_one_linear_layer_is_the_head_under_any_name(at: str, tmp_path: Path) -> None:
    torch.save(_body() | _head(at, WRAPPERS[at]), tmp_path / "w.pth")
    checkpoint = _assert_answers(tmp_path / "w.pth", _expected(WRAPPERS[at]))
    assert any(note.startswith(f"took {at}") for note in checkpoint.provenance.notes)


@pytest.mark.parametrize("body", ["backbone.", "model.vit.", "module.encoder.trunk.", "timm_model."])
@pytest.mark.parametrize("at", ["head", "fc", "classifier.1"])
def test_a_head_beside_the_body_is_kept(body: str, at: str, tmp_path: Path) -> None:
    parent = body[:-1].rpartition(".")[0]
    torch.save(_body(body) | _head(f"{parent}.{at}" if parent else at, LINEAR), tmp_path / "w.pth")
    _assert_answers(tmp_path / "w.pth", _expected(LINEAR))


@pytest.mark.parametrize("at", ["head", "fc", "classifier.1", "model.classifier"])
def test_a_head_beside_what_holds_the_body_is_kept(at: str, tmp_path: Path) -> None:
    """As of ``Sequential(backbone)`` beside a layer."""
    torch.save(_body("model.student.0.") | _head(at, LINEAR), tmp_path / "w.pth")
    _assert_answers(tmp_path / "w.pth", _expected(LINEAR))


def test_the_nearest_of_two_heads_is_taken_and_the_other_told(tmp_path: Path) -> None:
    other = nn.Linear(24, 3, dtype=torch.float64)
    torch.save(_body("model.student.") | _head("model.fc", LINEAR) | _head("probe", other), tmp_path / "w.pth")
    checkpoint = _assert_answers(tmp_path / "w.pth", _expected(LINEAR))
    assert any(re.match(r"set aside 2 tensors outside .*probe", note) for note in checkpoint.provenance.notes)


def test_a_head_on_class_token_and_mean_reads_both(tmp_path: Path) -> None:
    head = nn.Linear(48, 5, dtype=torch.float64)
    torch.save(_body("backbone.") | _head("linear_head", head), tmp_path / "w.pth")
    config = CONFIG.replace(num_classes=5, pool="token_avg")
    params = {name: array.astype(np.float64) for name, array in PARAMS.items()}
    params |= {f"head.{name}": tensor.numpy() for name, tensor in head.state_dict().items()}
    expected = numpy_reference.forward(config, params, IMAGES)
    checkpoint = conversion.load(tmp_path / "w.pth", model=CONFIG)
    assert checkpoint.config == config
    found = numpy_reference.forward(config, dict(checkpoint.params), IMAGES)
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())


def test_both_heads_of_a_distilled_model_may_be_wrapped(tmp_path: Path) -> None:
    config = CONFIG.replace(distilled=True, num_classes=5)
    params = random_params(config, seed=3)
    wrapped = {
        name.replace("head_dist.", "head_dist.1.").replace("head.", "head.1."): torch.from_numpy(array.copy())
        for name, array in params.items()
    }
    torch.save(wrapped, tmp_path / "w.pth")
    found = conversion.load(tmp_path / "w.pth", model=config)
    for name in ("head.weight", "head.bias", "head_dist.weight", "head_dist.bias"):
        np.testing.assert_array_equal(found.params[name], params[name])


STRANGE = {
    "an MLP": {"head": nn.Sequential(nn.Linear(24, 30), nn.ReLU(), nn.Linear(30, 5))},
    "a BatchNorm": {"head": nn.Sequential(nn.BatchNorm1d(24, affine=False), nn.Linear(24, 5))},
    "a norm": {"head": nn.Sequential(nn.LayerNorm(24), nn.Linear(24, 5))},
    "two heads": {"head_age": nn.Linear(24, 5), "head_sex": nn.Linear(24, 2)},
    "a layer of another width": {"fc": nn.Linear(96, 5)},
    "weight normalisation": {"head.last": nn.utils.parametrizations.weight_norm(nn.Linear(24, 5))},
    "a margin": {"arcface": nn.Linear(24, 9, bias=False)},
    "a head of the wrong shape": {"head": nn.Conv2d(24, 5, 1)},
}


@pytest.mark.parametrize("what", list(STRANGE))
def test_any_other_head_is_refused_or_dropped(what: str, tmp_path: Path) -> None:
    heads = STRANGE[what]
    torch.save(_body() | {k: t for at, head in heads.items() for k, t in _head(at, head).items()}, tmp_path / "w.pth")
    with pytest.raises(VitportError, match=r"--head drop|has shape"):
        conversion.load(tmp_path / "w.pth", model=CONFIG)
    changes = conversion.Changes(head="drop")
    done = conversion.convert(tmp_path / "w.pth", tmp_path / "out", to="timm", changes=changes, model=CONFIG)
    for name, array in PARAMS.items():
        np.testing.assert_array_equal(done.result.params[name], array)
    fresh = vit_torch.create_model(CONFIG, weights=tmp_path / "w.pth", num_classes=4)
    assert fresh.head.weight.shape == (4, 24)


def test_what_lies_in_the_body_is_never_dropped_with_a_head(tmp_path: Path) -> None:
    for stray in ("blocks.0.attn.head.weight", "stem.0.weight", "rel_pos_bias.weight"):
        torch.save(_body() | {stray: torch.zeros(5, 24)}, tmp_path / "w.pth")
        with pytest.raises(VitportError, match=f"surplus {stray}"):
            conversion.load(tmp_path / "w.pth", model=CONFIG, need_head=False)


def test_the_head_of_scenic_is_its_output_projection(tmp_path: Path) -> None:
    config = CONFIG.replace(num_classes=5, activation="gelu_tanh", image_size=12)
    params = random_params(config, seed=3)
    conversion.save(conversion.Checkpoint.of(config, params), tmp_path / "plain.npz", format="google")
    plain = dict(np.load(tmp_path / "plain.npz"))
    tree = {f"params/{name.replace('head/', 'output_projection/')}": plain[name] for name in plain}
    np.savez(tmp_path / "scenic.npz", **tree)
    found = conversion.load(tmp_path / "scenic.npz")
    assert found.config.num_classes == 5
    for name in ("head.weight", "head.bias"):
        np.testing.assert_array_equal(found.params[name], params[name])


PEERS = {
    "IJepaForImageClassification": (transformers.IJepaConfig, transformers.IJepaForImageClassification),
    "ViTMSNForImageClassification": (transformers.ViTMSNConfig, transformers.ViTMSNForImageClassification),
    "ViTForImageClassification": (transformers.ViTConfig, transformers.ViTForImageClassification),
}


@pytest.mark.parametrize("name", list(PEERS))
def test_transformers_classifiers_keep_their_head(name: str, tmp_path: Path) -> None:
    make, model = PEERS[name]
    config = make(hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=41, image_size=12,
                  patch_size=4, num_labels=7)  # fmt: skip
    torch.manual_seed(0)
    theirs = model(config).double().eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(0, 0.3)
    theirs.save_pretrained(tmp_path / "folder")
    images = random_images(CONFIG.replace(image_size=12), 2, seed=3)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(images.astype(np.float64))).logits.numpy()
    checkpoint = conversion.load(tmp_path / "folder")
    assert checkpoint.config.num_classes == 7
    loaded = numpy_reference.forward(checkpoint.config, dict(checkpoint.params), images)
    own = semantics_of_file(tmp_path / "folder", checkpoint.config).run(images.transpose(0, 2, 3, 1))["head"]
    for found in (loaded, own):
        assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()


def test_the_formats_own_head_may_lack_its_bias(tmp_path: Path) -> None:
    torch.save(_body() | _head("head", BARE), tmp_path / "w.pth")
    checkpoint = _assert_answers(tmp_path / "w.pth", _expected(BARE))
    assert "head.weight has no bias beside it; zeros are its bias" in checkpoint.provenance.notes


@pytest.mark.parametrize("format", ["huggingface-vit", "torchvision", "big-vision"])
def test_a_head_without_bias_is_read_in_any_format(format: str, tmp_path: Path) -> None:
    """The file as the format is written, less its record and the head's bias."""
    changes: dict = {"image_size": (8, 8)}
    if format == "big-vision":
        changes = {"pool": "map", "class_token": False, "activation": "gelu_tanh"}
    config = CONFIG.replace(num_classes=5, **changes)
    params = random_params(config, seed=3, dtype=np.float32)
    conversion.save(conversion.Checkpoint.of(config, params), tmp_path / "w", format=format)
    if format == "huggingface-vit":
        (tmp_path / "w" / "vitport.json").unlink(missing_ok=True)
        held = load_file(tmp_path / "w" / "model.safetensors")
        del held["classifier.bias"]
        save_file(held, tmp_path / "w" / "model.safetensors", {"format": "pt"})
    elif format == "torchvision":
        held = torch.load(tmp_path / "w", weights_only=True)
        torch.save({name: tensor for name, tensor in held.items() if name != "heads.head.bias"}, tmp_path / "w")
    else:
        with np.load(tmp_path / "w") as arrays:
            held = {name: array for name, array in arrays.items() if name not in ("head/bias", "vitport")}
        with (tmp_path / "w").open("wb") as file:
            np.savez(file, **held)
    checkpoint = conversion.load(tmp_path / "w", model=config)
    assert not checkpoint.params["head.bias"].any()
    found = {name: array for name, array in checkpoint.params.items() if name != "head.bias"}
    assert all(np.array_equal(array, params[name]) for name, array in found.items())


def test_a_file_that_vitport_wrote_has_its_heads_bias(tmp_path: Path) -> None:
    config = CONFIG.replace(num_classes=5)
    checkpoint = conversion.Checkpoint.of(config, random_params(config, seed=3, dtype=np.float32))
    conversion.save(checkpoint, tmp_path / "w.safetensors", format="timm")
    with safe_open(tmp_path / "w.safetensors", "numpy") as file:
        held, record = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    del held["head.bias"]
    save_file(held, tmp_path / "w.safetensors", record)
    with pytest.raises(VitportError, match=r"head\.bias is missing, which vitport wrote"):
        conversion.load(tmp_path / "w.safetensors")
