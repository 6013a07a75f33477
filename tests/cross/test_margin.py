"""Images that patches do not fill: what is left over at the bottom and at the right is not read.

Oracle: transformers' own classes as ``save_pretrained`` writes them, and onnxruntime.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import transformers

import conversion
from tests.cross.transformers_folders import distances, randomize, relative
from tests.random_weights import random_params
from tests.small_configs import BASE
from vit_parity import Original, verify
from vit_parity.capture import torch_activations
from vit_parity.frameworks import torch_model
from vit_spec import VitportError, get_model

SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3}
MLP = {**SIZES, "intermediate_size": 41}
OBLONG = {**MLP, "image_size": (29, 38), "patch_size": 6}  # 4 x 6 patches; 5 rows and 2 columns are left over
SQUARE = {**MLP, "image_size": 36, "patch_size": 8}  # as 384 by 14: the grid is square, the image is not a multiple
MODELS: dict[str, tuple[Callable[[], torch.nn.Module], tuple[int, int]]] = {
    "SigLIP": (
        lambda: transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**SQUARE)),
        (36, 36),
    ),
    "SigLIP classifier": (
        lambda: transformers.SiglipForImageClassification(
            transformers.SiglipConfig(vision_config=SQUARE, num_labels=5)
        ),
        (36, 36),
    ),
    "CLIP": (lambda: transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**SQUARE)), (36, 36)),
    "ViT": (lambda: transformers.ViTForImageClassification(transformers.ViTConfig(**OBLONG, num_labels=5)), (29, 38)),
    "DeiT": (lambda: transformers.DeiTModel(transformers.DeiTConfig(**OBLONG)), (29, 38)),
    "DINOv2": (
        lambda: transformers.Dinov2Model(
            transformers.Dinov2Config(**SIZES, mlp_ratio=2, image_size=30, patch_size=7, layerscale_value=0.7)
        ),
        (30, 30),
    ),
    "DINOv2 with registers": (
        lambda: transformers.Dinov2WithRegistersForImageClassification(
            transformers.Dinov2WithRegistersConfig(**SIZES, mlp_ratio=2, image_size=30, patch_size=7, num_labels=5)
        ),
        (30, 30),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_both_models_agree_with_transformers(name, tmp_path) -> None:
    """Measured 2e-15 at most in float64."""
    make, size = MODELS[name]
    both = ("torch", "jax") if name in ("SigLIP", "ViT") else ("torch",)
    found = distances(randomize(make()), tmp_path, size, frameworks=both)
    assert len(found) >= len(both)
    assert max(found.values()) < 1e-13, found
    assert conversion.load(tmp_path).config.image_size == size


def test_a_table_is_resized_to_the_grid_that_fits_into_the_new_image(tmp_path) -> None:
    """Oracle: transformers' interpolate_pos_encoding, in float32; measured 4e-7."""
    model = randomize(transformers.ViTModel(transformers.ViTConfig(**SQUARE), add_pooling_layer=False))
    model.save_pretrained(tmp_path)
    checkpoint = conversion.prepare(None, weights=conversion.load(tmp_path), image_size=(43, 50))
    assert checkpoint.config.grid_size == (5, 6)
    assert "the last 3 rows and the last 2 columns are not read" in checkpoint.provenance.notes[-2]
    images = np.random.default_rng(0).standard_normal((1, 43, 50, 3)).astype(np.float32)
    with torch.no_grad():
        expected = model(torch.tensor(images.transpose(0, 3, 1, 2)), interpolate_pos_encoding=True).last_hidden_state
    found = torch_activations(torch_model(checkpoint), images)["norm"]
    assert relative(found, expected.numpy()) < 3e-6


def test_a_conversion_is_verified(tmp_path) -> None:
    """The source by its own names, the result by its own, and both frameworks."""
    randomize(MODELS["ViT"][0]()).save_pretrained(tmp_path / "source")
    source = conversion.load(tmp_path / "source")
    conversion.save(source, tmp_path / "result", format="flax")
    result = conversion.load(tmp_path / "result", model=source.config)
    assert result.config.image_size == (29, 38)
    proof = verify(Original(tmp_path / "source", source), tmp_path / "result", result)
    assert proof.passed, proof.verdict


def test_torchvision_which_takes_whole_patches_is_refused(tmp_path) -> None:
    """Its VisionTransformer asserts that the patches fill the image."""
    config = BASE.replace(image_size=13)
    checkpoint = conversion.Checkpoint.of(config, random_params(config, seed=1, dtype=np.float32))
    with pytest.raises(VitportError, match="takes whole patches of 4 only"):
        conversion.save(checkpoint, tmp_path / "model.pth", format="torchvision")


def test_what_a_file_without_an_image_size_loses_is_told(tmp_path) -> None:
    config = BASE.replace(image_size=14, activation="gelu_tanh")
    checkpoint = conversion.Checkpoint.of(config, random_params(config, seed=1, dtype=np.float32))
    notes = conversion.save(checkpoint, tmp_path / "model.npz", format="google", activation="keep")
    assert any("image_size=14x14 (readers take a square of whole patches)" in note for note in notes), notes


@pytest.mark.parametrize("name", ["vit_so400m_patch14_siglip_384", "vit_so400m_patch14_siglip_gap_384"])
def test_a_registered_name_has_its_own_size(name) -> None:
    """384 of big_vision's checkpoint: 27 x 27 patches of 14, six rows and columns left over."""
    model = get_model(name)
    assert (model.config.image_size, model.preprocessing.size) == ((384, 384), (384, 384))
    assert (model.config.grid_size, model.config.margin) == ((27, 27), (6, 6))


def test_the_exported_graph_reads_no_more_than_the_patches(tmp_path) -> None:
    """Oracle: onnxruntime. Pixels outside the patches change nothing; one row further up they do."""
    import onnxruntime

    config = BASE.replace(image_size=(15, 22))
    checkpoint = conversion.Checkpoint.of(config, random_params(config, seed=1, dtype=np.float32))
    model, images = torch_model(checkpoint), np.random.default_rng(0).standard_normal((1, 3, 15, 22), np.float32)
    file = str(tmp_path / "model.onnx")
    torch.onnx.export(model, (torch.tensor(images),), file, dynamo=False, input_names=["image"])
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = model(torch.tensor(images)).numpy()
    assert relative(session.run(None, {"image": images})[0], expected) < 2e-6  # measured 3e-7
    for rows, changes in ((slice(12, None), False), (slice(11, None), True)):
        other = images.copy()
        other[:, :, rows] += 1.0
        assert (np.abs(session.run(None, {"image": other})[0] - expected).max() > 1e-3) == changes
