"""Folders whose config.json names a class. Oracle: transformers' own classes, saved by itself."""

from __future__ import annotations

import json
from typing import Any

import pytest
import transformers

import conversion
from conversion.identify.known_class import known_classes
from vit_spec import VitportError

SIZES: dict[str, Any] = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 20}
IMAGES: dict[str, Any] = SIZES | {"image_size": 12, "patch_size": 4}


def _rename(folder, **changes) -> None:
    told = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({name: it for name, it in told.items() if it is not None}))


FOREIGN = {
    "audio-spectrogram-transformer": lambda: transformers.ASTForAudioClassification(
        transformers.ASTConfig(**SIZES, patch_size=4, max_length=16, num_mel_bins=12, frequency_stride=4, time_stride=4)
    ),
    "yolos": lambda: transformers.YolosModel(
        transformers.YolosConfig(**SIZES, image_size=[12, 8], patch_size=4, num_detection_tokens=3)
    ),
    "beit": lambda: transformers.BeitForMaskedImageModeling(transformers.BeitConfig(**IMAGES)),
    "vivit": lambda: transformers.VivitModel(
        transformers.VivitConfig(**SIZES, image_size=8, num_frames=2, tubelet_size=[2, 4, 4])
    ),
    "clip_text_model": lambda: transformers.CLIPTextModel(
        transformers.CLIPTextConfig(**SIZES, vocab_size=20, max_position_embeddings=8)
    ),
    "vit": lambda: type("ViTForDepth", (transformers.ViTForImageClassification,), {})(transformers.ViTConfig(**IMAGES)),
}  # fmt: skip


@pytest.mark.parametrize("kind", list(FOREIGN))
def test_a_class_that_is_not_read_is_refused_by_its_name(kind, tmp_path) -> None:
    model = FOREIGN[kind]()
    model.save_pretrained(tmp_path)
    name = f"model_type='{kind}'" if kind not in known_classes() else f"architectures=.'{type(model).__name__}'"
    with pytest.raises(VitportError, match=name):
        conversion.load(tmp_path)


def test_the_same_tensors_under_another_type_are_refused(tmp_path) -> None:
    """An audio spectrogram transformer's tensors are a DeiT's; only config.json tells them apart."""
    transformers.DeiTModel(transformers.DeiTConfig(**IMAGES)).save_pretrained(tmp_path)
    conversion.load(tmp_path)
    _rename(tmp_path, model_type="audio-spectrogram-transformer")
    with pytest.raises(VitportError, match="model_type='audio-spectrogram-transformer'"):
        conversion.load(tmp_path)
    _rename(tmp_path, model_type="vit", architectures=None)
    with pytest.raises(
        VitportError, match=r"model_type='vit', but the tensors' names are those of .*\(model_type deit"
    ):
        conversion.load(tmp_path)
    _rename(tmp_path, model_type=None, architectures=["ASTModel"])
    with pytest.raises(VitportError, match=r"architectures=\['ASTModel'"):
        conversion.load(tmp_path)


def test_a_flax_class_counts_as_pytorchs(tmp_path) -> None:
    transformers.ViTModel(transformers.ViTConfig(**IMAGES)).save_pretrained(tmp_path)
    _rename(tmp_path, architectures=["FlaxViTModel"])
    assert conversion.load(tmp_path).config.num_heads == 3


def test_every_known_class_is_transformers_own_of_that_type() -> None:
    for kind, classes in known_classes().items():
        for name in classes:
            assert getattr(transformers, name).config_class.model_type in (kind, f"{kind}_vision_model"), name
