"""Folders of pre-training give their encoder. Oracle: transformers' own encoder inside the same model, in float64.

Tolerance 1e-12 of the largest output: float64 rounding, measured at most 3e-15.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

import conversion
from tests import numpy_reference
from tests.random_weights import random_images
from vit_parity.semantics import semantics_of_file

TOLERANCE = 1e-12
SIZES = {
    "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 41, "image_size": 12,
    "patch_size": 4,
}  # fmt: skip
DECODER = {"decoder_hidden_size": 24, "decoder_intermediate_size": 48, "decoder_num_attention_heads": 3,
           "decoder_num_hidden_layers": 1, "mask_ratio": 0.0}  # fmt: skip
MODELS = {
    "ViTMAEForPreTraining": transformers.ViTMAEConfig(**SIZES, **DECODER),
    "ViTForMaskedImageModeling": transformers.ViTConfig(**SIZES, encoder_stride=4),
    "DeiTForMaskedImageModeling": transformers.DeiTConfig(**SIZES, encoder_stride=4),
}


@pytest.mark.parametrize("name", list(MODELS))
def test_the_encoder_is_read_and_the_decoder_told(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = getattr(transformers, name)(MODELS[name]).double().eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(0, 0.3)
    theirs.save_pretrained(tmp_path / "folder")
    checkpoint = conversion.load(tmp_path / "folder")
    images = random_images(checkpoint.config, 2, seed=3)
    unshuffled = {"noise": torch.arange(9).expand(2, 9)} if name.startswith("ViTMAE") else {}
    with torch.no_grad():
        base = theirs.base_model(torch.from_numpy(images.astype(np.float64)), **unshuffled)
    expected = base.last_hidden_state[:, 0].numpy()
    loaded = numpy_reference.forward(checkpoint.config, dict(checkpoint.params), images)
    own = semantics_of_file(tmp_path / "folder", checkpoint.config).run(images.transpose(0, 2, 3, 1))["head"]
    for found in (loaded, own):
        assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()
    assert any("decoder" in note for note in checkpoint.provenance.notes)
