"""transformers' BEiT and Data2VecVision answer the same as both of ours, read from the folders that they write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import conversion
from tests.cross.transformers_folders import check_both_spellings, distances, randomize
from vit_spec import VitportError

SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "patch_size": 4, "intermediate_size": 40,
         "image_size": 12, "num_labels": 5}  # fmt: skip
OWN, SHARED = {"use_relative_position_bias": True}, {"use_shared_relative_position_bias": True}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "BEiT": ("BeitModel", OWN),
    "BEiT's classifier": ("BeitForImageClassification", OWN | {"layer_norm_eps": 1e-5}),
    "class token": ("BeitForImageClassification", OWN | {"use_mean_pooling": False, "use_mask_token": True}),
    "shared biases": ("BeitModel", SHARED | {"use_absolute_position_embeddings": True, "use_mean_pooling": False}),
    "a table alone": ("BeitModel", {"use_absolute_position_embeddings": True}),
    "no layer scale": ("BeitModel", OWN | {"layer_scale_init_value": 0.0}),
    "Data2Vec": ("Data2VecVisionForImageClassification", OWN),
}


def model(name: str) -> torch.nn.Module:
    kind, changes = VARIANTS[name]
    torch.manual_seed(0)
    cls = getattr(transformers, kind)
    found = randomize(cls(cls.config_class(**SIZES | changes)))
    with torch.no_grad():  # of order 1, so that rows in other places show
        for name, parameter in found.named_parameters():
            if name.endswith("relative_position_bias_table"):
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return found


@pytest.mark.parametrize("name", VARIANTS)
def test_tokens_and_answers_agree(name: str, tmp_path: Path) -> None:
    """Measured 6e-15. transformers mixes up rows of the table of images that are not square; those are compared in
    tests/cross/test_parity.py and with timm. A row of the table in another place costs a tenth of the values."""
    found = distances(model(name), tmp_path, (12, 12))
    assert {what.split()[0] for what in found} == {"torch", "jax"}
    assert max(found.values()) < 1e-12, found


@pytest.mark.parametrize("name", [name for name in VARIANTS if name != "Data2Vec"])
def test_a_folder_that_is_written_loads_in_transformers_and_answers_the_same(name: str, tmp_path: Path) -> None:
    """No key is missing and none unexpected. Biases that blocks shared are each block's own now."""
    theirs = model(name)
    theirs.save_pretrained(tmp_path / "a")
    conversion.save(conversion.load(tmp_path / "a"), tmp_path / "b", format="huggingface")
    again, info = type(theirs).from_pretrained(tmp_path / "b", output_loading_info=True)
    assert not any(info.values()), info
    images = torch.randn(1, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, found = (it(images) for it in (theirs, again.eval()))
    what = "logits" if "logits" in expected else "last_hidden_state"
    torch.testing.assert_close(found[what], expected[what], rtol=0, atol=1e-6)


def test_both_spellings_of_names_are_read(tmp_path: Path) -> None:
    check_both_spellings(model("BEiT"), tmp_path)


def test_images_that_are_not_square_are_refused_in_both_directions(tmp_path: Path) -> None:
    """Oracle: transformers, whose answer to them is none of the model that the table was trained in."""
    theirs = model("BEiT")
    theirs.save_pretrained(tmp_path / "a")
    sized = conversion.with_sizes(conversion.load(tmp_path / "a"), image_size=(12, 20))
    with pytest.raises(VitportError, match="12x20 pixels"):
        conversion.save(sized, tmp_path / "b", format="huggingface-beit")
    theirs.config.image_size = [12, 20]
    theirs.config.save_pretrained(tmp_path / "a")
    with pytest.raises(VitportError, match="not square"):
        conversion.load(tmp_path / "a")


def test_another_image_size_resizes_the_biases_and_keeps_those_of_the_class_token(tmp_path: Path) -> None:
    model("BEiT").save_pretrained(tmp_path)
    before = conversion.load(tmp_path)
    after = conversion.prepare(None, weights=before, image_size=(20, 20))
    name = "blocks.1.attn.relative_position_bias_table"
    assert after.params[name].shape == (9 * 9 + 3, 3)
    assert np.array_equal(after.params[name][-3:], before.params[name][-3:])
    with pytest.raises(VitportError, match="resizes no biases"):
        conversion.with_sizes(before, image_size=(20, 20), resize="torch-bilinear")
