"""One error lists everything that is missing, surplus or misshapen, with the nearest known name."""

from __future__ import annotations

import numpy as np
import pytest
import safetensors.numpy

import conversion
from tests.conversion.canaries import ASYMMETRIC, canary_params
from vit_spec import VitportError

CONFIG = ASYMMETRIC.replace(image_size=12)


def _load(tmp_path, params: dict[str, np.ndarray]) -> None:
    safetensors.numpy.save_file(params, tmp_path / "w.safetensors")
    conversion.load(tmp_path / "w.safetensors", model=CONFIG)


def test_all_faults_are_told_at_once(tmp_path) -> None:
    params = canary_params(CONFIG)
    params["blocks.7.norm1.wieght"] = params.pop("blocks.7.norm1.weight")
    params["blocks.2.mlp.fc1.bias"] = np.zeros(3, np.float32)
    params["decoder.weight"] = np.zeros(2, np.float32)
    with pytest.raises(VitportError) as caught:
        _load(tmp_path, params)
    message = str(caught.value)
    assert "missing blocks.7.norm1.weight" in message
    assert "surplus blocks.7.norm1.wieght (nearest known name: blocks.7.norm1.weight)" in message
    assert "blocks.2.mlp.fc1.bias has shape (3,) instead of (40,)" in message
    assert "surplus decoder.weight" in message
    assert message.startswith("4 tensors do not fit the model")
    assert "\n" not in message


@pytest.mark.parametrize("name", list(canary_params(CONFIG.replace(depth=1))))
def test_every_single_missing_tensor_is_noticed(tmp_path, name) -> None:
    """Optional parts (a whole head, a bias) show another model, so either the load fails or the config says it."""
    config = CONFIG.replace(depth=1)
    params = canary_params(config)
    del params[name]
    safetensors.numpy.save_file(params, tmp_path / "w.safetensors")
    try:
        loaded = conversion.load(tmp_path / "w.safetensors", model=config)
    except VitportError as error:
        assert name in str(error) or name.rpartition(".")[0] in str(error)
    else:
        changed = {field for field, value in loaded.config.to_dict().items() if value != config.to_dict()[field]}
        biases = {"patch_bias", "qkv_bias", "proj_bias", "mlp_bias"}
        assert changed <= {"class_token", "pool", "pos_embed", "image_size"} | biases
        # A head without a bias gets zeros, which is told.
        assert changed or any("head.weight has no bias" in note for note in loaded.provenance.notes)


def test_tensors_of_a_foreign_format_are_named_as_the_file_names_them(tmp_path) -> None:
    import transformers

    config = transformers.ViTConfig(
        hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=20, image_size=12, patch_size=4
    )
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path)
    weights = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    del weights["vit.encoder.layer.1.layernorm_after.bias"]
    safetensors.numpy.save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(
        VitportError, match=r"blocks\.1\.norm2\.bias \(in the file: encoder\.layer\.1\.layernorm_after\.bias\)"
    ):
        conversion.load(tmp_path)


def test_a_position_table_that_fits_no_square_asks_for_the_size(tmp_path) -> None:
    params = canary_params(ASYMMETRIC)
    safetensors.numpy.save_file(params, tmp_path / "w.safetensors")
    with pytest.raises(VitportError, match="pos_embed has 16 rows, which fit neither a square grid"):
        conversion.load(tmp_path / "w.safetensors", model=CONFIG)
    assert conversion.load(tmp_path / "w.safetensors", model=ASYMMETRIC).config.grid_size == (3, 5)


def test_a_class_row_that_could_be_a_patch_is_decided_by_the_config(tmp_path) -> None:
    """A 3×3 grid without a class row and a 2×4 grid with one have both nine rows."""
    square = ASYMMETRIC.replace(image_size=12, pos_embed="patch")
    oblong = ASYMMETRIC.replace(image_size=(8, 16), pos_embed="prefix")
    for config in (square, oblong):
        safetensors.numpy.save_file(canary_params(config), tmp_path / "w.safetensors")
        assert conversion.load(tmp_path / "w.safetensors", model=config).config == config
