"""Classes of transformers by the names of families of image models: each is read right, or refused by its name.

Oracle: the classes themselves, built small with random weights, and saved by ``save_pretrained``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

import conversion
from tests.cross.transformers_classes import classes, small
from tests.cross.transformers_folders import answers, distances, randomize
from vit_parity.capture import torch_activations
from vit_parity.frameworks import Framework, torch_model
from vit_spec import VitportError

SIZE = (32, 32)
READ = [
    "BeitBackbone", "Dinov2Backbone", "DINOv3ViTBackbone", "MetaClip2VisionModelWithProjection",
    "SiglipModel", "Siglip2Model", "Siglip2ForImageClassification", "ViTMAEModel", "IJepaModel", "ChineseCLIPModel",
    "OwlViTVisionModel", "BlipVisionModel", "Blip2VisionModel",
]  # fmt: skip
REFUSED = [
    "BeitForSemanticSegmentation", "CLIPTextModel", "DINOv3ConvNextModel", "RfDetrDinov2Backbone", "VitDetModel",
    "VJEPA2Model",
]  # fmt: skip
FLOAT64 = 1e-13
"""Measured 2e-15."""


def read_or_refused(name: str, folder: Path, frameworks: Sequence[Framework] = ("torch", "jax")) -> bool:
    """Whether the class is read; its answers then agree, and else the refusal names it."""
    model = small(name)
    model.save_pretrained(folder / "own")
    kind = model.config.model_type
    try:
        conversion.load(folder / "own")
    except VitportError as error:
        said = str(error)
        assert f"config.json has model_type={kind!r} ({name})" in said or f"architectures=[{name!r}]" in said, said
        assert "save_pretrained" in said, said
        return False
    found = distances(randomize(model), folder / "random", SIZE, frameworks=frameworks)
    assert found, f"{name} gives nothing to compare"
    assert max(found.values()) < FLOAT64, (name, found)
    return True


@pytest.mark.parametrize("name", READ)
def test_a_class_that_is_read_gives_its_own_answers(name, tmp_path) -> None:
    assert read_or_refused(name, tmp_path, ("torch",))


@pytest.mark.parametrize("name", REFUSED)
def test_a_class_that_is_not_read_is_refused_by_its_name(name, tmp_path) -> None:
    assert not read_or_refused(name, tmp_path)


@pytest.mark.slow
def test_every_class_is_read_right_or_refused_by_its_name(tmp_path) -> None:
    """106 classes of transformers 5.23."""
    names = list(classes())
    assert set(READ) | set(REFUSED) <= set(names)
    assert len(names) > 90
    read = {name for at, name in enumerate(names) if read_or_refused(name, tmp_path / str(at))}
    assert set(READ) <= read


@pytest.mark.parametrize("name", ["DeiTModel", "ViTModel"])
def test_float32_is_as_far_from_the_truth_as_transformers_own(name, tmp_path) -> None:
    """The pooler's tanh of a wide spread of values shows rounding most: 8e-6 between the two float32 runs.

    It is rounding and nothing else. In float64 the two agree to 2e-14, which is 2**29 times closer, as float64's
    roundoff is; and transformers' float32 is as far from its own float64 as ours is.
    """
    torch.manual_seed(0)
    model = small(name).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)  # logits of the attention around 20: a hard case for float32
    model.save_pretrained(tmp_path)
    checkpoint = conversion.load(tmp_path)
    images = np.random.default_rng(0).standard_normal((2, *SIZE, 3))
    theirs = {dtype: answers(model, images, dtype)["answer"] for dtype in ("float32", "float64")}
    ours = {dtype: torch_activations(torch_model(checkpoint, dtype), images)["head"] for dtype in theirs}
    truth = theirs["float64"]
    assert 0.9 < np.abs(truth).max() <= 1
    assert np.abs(ours["float64"] - truth).max() < 1e-13
    rounding = np.abs(theirs["float32"] - truth).max()
    assert 1e-6 < rounding < 3e-5
    assert np.abs(ours["float32"] - truth).max() < 3 * rounding


@pytest.mark.parametrize("place", ["backbone_config", "vision_config"])
def test_a_known_part_of_a_larger_model_is_pointed_at(place, tmp_path) -> None:
    dino = transformers.Dinov2Config(hidden_size=24, num_hidden_layers=2, num_attention_heads=3, out_indices=[1])
    transformers.DepthAnythingConfig(backbone_config=dino).save_pretrained(tmp_path)
    small("ViTMSNModel").save_pretrained(tmp_path / "tensors")
    (tmp_path / "tensors" / "model.safetensors").rename(tmp_path / "model.safetensors")
    text = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(text.replace('"backbone_config"', f'"{place}"'))
    said = f"model_type='depth_anything', which is not .* its {place} is a 'dinov2', so save that part .* Dinov2Model"
    with pytest.raises(VitportError, match=said):
        conversion.load(tmp_path)
