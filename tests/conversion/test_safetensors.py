"""Reading and writing canonical safetensors files. Oracle: the safetensors library's own reader and writer."""

from __future__ import annotations

import hashlib
import json

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy

import conversion
from tests.conversion.canaries import ASYMMETRIC, assert_same_tensors, canary_checkpoint, canary_params
from vit_spec import ViTConfig, VitportError, get_model, parameters


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.float64])
def test_the_library_reads_what_we_write(tmp_path, dtype) -> None:
    checkpoint = canary_checkpoint(dtype=dtype)
    conversion.save(checkpoint, tmp_path / "w", format="timm")
    assert_same_tensors(safetensors.numpy.load_file(tmp_path / "w"), checkpoint.params)


def test_mixed_dtypes_stay_aligned_and_equal(tmp_path) -> None:
    params = canary_params(ASYMMETRIC)
    params["head.bias"] = params["head.bias"].astype(np.float16)
    params["cls_token"] = params["cls_token"].astype(ml_dtypes.bfloat16)
    checkpoint = conversion.Checkpoint.of(ASYMMETRIC, params)
    conversion.save(checkpoint, tmp_path / "w", format="timm")
    assert_same_tensors(safetensors.numpy.load_file(tmp_path / "w"), params)


def test_config_preprocessing_and_labels_travel_with_the_weights(tmp_path) -> None:
    checkpoint = canary_checkpoint()
    conversion.save(checkpoint, tmp_path / "w.safetensors", format="timm")
    loaded = conversion.load(tmp_path / "w.safetensors")
    assert loaded.config == checkpoint.config
    assert loaded.preprocessing == checkpoint.preprocessing
    assert loaded.labels == checkpoint.labels
    assert_same_tensors(loaded.params, checkpoint.params)


def test_a_bare_file_takes_its_untold_facts_from_the_named_model_and_its_sizes_from_shapes(tmp_path) -> None:
    small = ASYMMETRIC.replace(image_size=12, representation_size=None)
    safetensors.numpy.save_file(canary_params(small), tmp_path / "w.safetensors")
    loaded = conversion.load(tmp_path / "w.safetensors", model=small.replace(depth=2, num_classes=1000, image_size=24))
    assert (loaded.config.depth, loaded.config.num_classes, loaded.config.image_size) == (11, 7, (12, 12))
    assert loaded.config.num_heads == 3
    assert loaded.provenance.origins["depth"] == "the tensors' shapes"
    assert loaded.provenance.origins["num_heads"] == "the config given"


def test_heads_are_never_guessed_and_the_models_that_fit_are_named(tmp_path) -> None:
    config = get_model("deit_tiny_patch16_224").config
    safetensors.numpy.save_file(canary_params(config.replace(num_classes=3)), tmp_path / "w.safetensors")
    with pytest.raises(
        VitportError, match=r"num_heads, activation, norm_eps.*vit_tiny_patch16_224.*deit_tiny_patch16_224"
    ):
        conversion.load(tmp_path / "w.safetensors")


def test_progress_counts_every_tensor(tmp_path) -> None:
    calls: list[tuple[str, int, int]] = []
    checkpoint = canary_checkpoint()
    conversion.save(checkpoint, tmp_path / "w", format="timm", progress=lambda *call: calls.append(call))
    total = len(checkpoint.params)
    assert [call[1] for call in calls] == list(range(total + 1))
    assert {call[2] for call in calls} == {total}


def test_the_hash_is_that_of_the_file(tmp_path) -> None:
    conversion.save(canary_checkpoint(), tmp_path / "w", format="timm")
    expected = hashlib.sha256((tmp_path / "w").read_bytes()).hexdigest()
    assert conversion.load(tmp_path / "w").provenance.sha256 == expected


def test_the_hash_made_beside_the_writing_is_that_of_all_files_of_the_source(tmp_path) -> None:
    """Of a folder, config.json and then the weights; more than one piece of them. Oracle: hashlib over their bytes."""
    config = ViTConfig(image_size=64, patch_size=8, embed_dim=192, num_heads=3, depth=2, num_classes=0)
    params = {entry.name: np.ones(entry.shape, np.float32) for entry in parameters(config)}
    conversion.save(conversion.Checkpoint.of(config, params), tmp_path / "hf", format="huggingface-vit")
    conversion.save(conversion.load(tmp_path / "hf", model=config), tmp_path / "w", format="timm")
    content = b"".join((tmp_path / "hf" / name).read_bytes() for name in ("config.json", "model.safetensors"))
    assert len(content) > 3 << 20
    with safetensors.safe_open(tmp_path / "w", "numpy") as file:
        record = json.loads(file.metadata()["vitport"])
    assert record["source"]["sha256"] == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("format_name", ["timm", "flax"])
@pytest.mark.parametrize("qkv_bias", [True, False])
def test_parallel_blocks_are_recognised_by_their_tensors(tmp_path, format_name, qkv_bias) -> None:
    """Of the file, shapes alone: the record is left out, and the model named is another one."""
    config = ASYMMETRIC.replace(image_size=12, block="parallel", qkv_bias=qkv_bias, layer_scale=1e-5)
    conversion.save(conversion.Checkpoint.of(config, canary_params(config)), tmp_path / "w", format=format_name)
    assert_same_tensors(conversion.load(tmp_path / "w").params, canary_params(config))
    safetensors.numpy.save_file(canary_params(config), tmp_path / "bare")
    loaded = conversion.load(tmp_path / "bare", model=ASYMMETRIC.replace(image_size=12, mlp_hidden_dim=None))
    assert loaded.config.replace(layer_scale=1e-5) == config
    assert_same_tensors(loaded.params, canary_params(config))
