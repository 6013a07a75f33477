"""PyTorch files: wrappers, prefixes, dtypes, and pickles that would run code. Oracle: PyTorch's own save and load."""

from __future__ import annotations

import hashlib
import json
import zipfile

import ml_dtypes
import numpy as np
import pytest
import torch

import conversion
from conversion.containers import torch_file
from conversion.tensors.table import TensorTable
from tests.conversion.canaries import ASYMMETRIC, assert_same_tensors, canary_checkpoint, canary_params
from vit_spec import VitportError

CONFIG = ASYMMETRIC.replace(image_size=12, depth=2)
STATE = {name: torch.from_numpy(array) for name, array in canary_params(CONFIG).items()}


def _load(path) -> conversion.Checkpoint:
    return conversion.load(path, model=CONFIG)


@pytest.mark.parametrize("new_zip", [True, False], ids=["zip", "before 1.6"])
def test_a_bare_state_dict_is_read_bit_for_bit(tmp_path, new_zip) -> None:
    torch.save(STATE, tmp_path / "w.pth", _use_new_zipfile_serialization=new_zip)
    assert_same_tensors(_load(tmp_path / "w.pth").params, canary_params(CONFIG))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes_are_kept(tmp_path, dtype) -> None:
    torch.save({name: tensor.to(dtype) for name, tensor in STATE.items()}, tmp_path / "w.pth")
    params = _load(tmp_path / "w.pth").params
    assert {str(array.dtype) for array in params.values()} == {str(dtype).removeprefix("torch.")}
    bits = {torch.float16: torch.int16, torch.bfloat16: torch.int16, torch.float64: torch.int64}[dtype]
    for name, tensor in STATE.items():
        assert params[name].tobytes() == tensor.to(dtype).contiguous().view(bits).numpy().tobytes()


@pytest.mark.parametrize("prefix", ["module.", "module.module.", "_orig_mod.", "_orig_mod.module.", "model.", "a.b."])
def test_prefixes_are_peeled_off(tmp_path, prefix) -> None:
    torch.save({prefix + name: tensor for name, tensor in STATE.items()}, tmp_path / "w.pth")
    assert_same_tensors(_load(tmp_path / "w.pth").params, canary_params(CONFIG))


def test_two_tensors_of_one_name_are_refused_and_neither_is_dropped(tmp_path) -> None:
    torch.save(STATE | {"blocks.0._orig_mod.norm1.bias": torch.ones(24)}, tmp_path / "w.pth")
    with pytest.raises(VitportError, match=r"blocks\.0\.norm1\.bias and .*_orig_mod.* are both blocks\.0\.norm1\.bias"):
        _load(tmp_path / "w.pth")


def test_a_compiled_submodule_is_recognised(tmp_path) -> None:
    torch.save({name.replace("blocks.0.", "blocks.0._orig_mod."): t for name, t in STATE.items()}, tmp_path / "w.pth")
    assert_same_tensors(_load(tmp_path / "w.pth").params, canary_params(CONFIG))


@pytest.mark.parametrize("key", ["model", "state_dict", "teacher"])
def test_a_training_checkpoint_is_unwrapped_and_the_choice_is_told(tmp_path, key) -> None:
    optimizer = {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]}
    torch.save({key: STATE, "epoch": 3, "optimizer": optimizer}, tmp_path / "w.pth")
    checkpoint = _load(tmp_path / "w.pth")
    assert_same_tensors(checkpoint.params, canary_params(CONFIG))
    assert any(repr(key) in note for note in checkpoint.provenance.notes)


def test_several_sets_of_weights_are_a_choice_of_the_users(tmp_path) -> None:
    other = {name: tensor + 1 for name, tensor in STATE.items()}
    torch.save({"state_dict": STATE, "state_dict_ema": other}, tmp_path / "w.pth")
    with pytest.raises(VitportError, match="state_dict, state_dict_ema"):
        _load(tmp_path / "w.pth")
    chosen = conversion.load(tmp_path / "w.pth", model=CONFIG, weights_key="state_dict_ema")
    assert (chosen.params["cls_token"] == STATE["cls_token"].numpy() + 1).all()


def test_several_models_in_one_table_are_refused(tmp_path) -> None:
    torch.save({f"{who}.{name}": t for name, t in STATE.items() for who in ("student", "teacher")}, tmp_path / "w.pth")
    with pytest.raises(VitportError, match=r"several models, under .*student.*teacher"):
        _load(tmp_path / "w.pth")


def test_what_lies_beside_the_model_is_set_aside_and_told(tmp_path) -> None:
    file = {f"backbone.{name}": tensor for name, tensor in STATE.items()} | {"projector.0.weight": torch.ones(3, 3)}
    torch.save(file, tmp_path / "w.pth")
    assert any("projector.0" in note for note in _load(tmp_path / "w.pth").provenance.notes)


class _Malicious:
    def __reduce__(self):
        import os

        return os.mkdir, ("ran",)


@pytest.mark.parametrize("new_zip", [True, False], ids=["zip", "before 1.6"])
def test_a_pickle_with_code_is_refused_and_its_code_does_not_run(tmp_path, monkeypatch, new_zip) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": STATE, "args": _Malicious()}, "w.pth", _use_new_zipfile_serialization=new_zip)
    with pytest.raises(VitportError, match="opening it could run code"):
        _load(tmp_path / "w.pth")
    assert not (tmp_path / "ran").exists()


def test_a_bare_pickle_is_refused_and_its_code_does_not_run(tmp_path, monkeypatch) -> None:
    import pickle

    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(_Malicious()))
    with pytest.raises(VitportError):
        _load(tmp_path / "w.pkl")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("new_zip", [True, False], ids=["zip", "before 1.6"])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_a_truncated_file_is_one_sentence(tmp_path, new_zip, share) -> None:
    torch.save(STATE, tmp_path / "w.pth", _use_new_zipfile_serialization=new_zip)
    whole = (tmp_path / "w.pth").read_bytes()
    (tmp_path / "w.pth").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(VitportError) as caught:
        _load(tmp_path / "w.pth")
    assert "\n" not in str(caught.value)


def test_a_file_without_tensors_is_one_sentence(tmp_path) -> None:
    torch.save({"epoch": 3}, tmp_path / "w.pth")
    with pytest.raises(VitportError, match="no state_dict"):
        _load(tmp_path / "w.pth")
    torch.save(np.float64(3).item(), tmp_path / "w.pth")
    with pytest.raises(VitportError, match="no state_dict"):
        _load(tmp_path / "w.pth")


WRITTEN = {
    "half": np.arange(6, dtype=np.float16).reshape(2, 3),
    "bits": np.arange(5).astype(ml_dtypes.bfloat16),
    "transposed": np.arange(300 * 200, dtype=np.float32).reshape(300, 200).T,
    "double": np.random.default_rng(0).normal(size=(2, 1, 3)),
    "nothing": np.zeros((0, 3), np.float32),
    "scalar": np.array(3.5, np.float32),
    "step": np.array([1, -2]),
    **{dtype: np.array([0, 1, 1]).astype(dtype) for dtype in ("int32", "int16", "int8", "uint8", "bool")},
}


@pytest.mark.parametrize("options", [{}, {"mmap": True}, {"weights_only": False}], ids=str)
def test_what_is_written_tensor_by_tensor_is_what_torch_save_would_have_written(tmp_path, options) -> None:
    expected = {
        name: torch.from_numpy(array.astype(np.float32) if name == "bits" else array.copy(order="C"))
        for name, array in WRITTEN.items()
    }
    expected["bits"] = expected["bits"].to(torch.bfloat16)
    torch_file.write(tmp_path / "w.pth", TensorTable.of(WRITTEN), canary_checkpoint(), lambda name: None)
    torch.save(expected, tmp_path / "torchs.pth")
    ours, theirs = (torch.load(tmp_path / name, **options) for name in ("w.pth", "torchs.pth"))
    assert list(ours) == list(theirs)
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype, name
        assert ours[name].shape == tensor.shape, name
        assert ours[name].is_contiguous(), name
        assert ours[name].stride() == tensor.stride() or not tensor.numel(), name
        assert not ours[name].requires_grad
        assert torch.equal(ours[name], tensor), name
    assert json.loads(ours._metadata["vitport"])["config"] == canary_checkpoint().config.to_dict()
    with zipfile.ZipFile(tmp_path / "w.pth") as archive:
        assert archive.testzip() is None


def test_the_record_holds_the_hash_of_the_source(tmp_path) -> None:
    """The hash is computed beside the writing. Oracle: hashlib over the file's bytes."""
    config = CONFIG.replace(activation="gelu", norm_eps=1e-6)
    source = tmp_path / "source.safetensors"
    conversion.save(conversion.Checkpoint.of(config, canary_params(config)), source, format="timm")
    conversion.save(conversion.load(source), tmp_path / "w.pth", format="torch-encoder")
    record = json.loads(torch.load(tmp_path / "w.pth")._metadata["vitport"])
    assert record["source"]["sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()


@pytest.mark.parametrize("computes", [True, False], ids=["checksums", "without checksums"])
def test_a_flipped_bit_is_found_where_the_archive_has_checksums(computes, tmp_path) -> None:
    """Oracle: zipfile's own test of the archive. PyTorch reads the wrong number without a word."""
    torch.serialization.set_crc32_options(computes)
    try:
        torch.save({"a": torch.arange(1000.0), "b": torch.ones(7)}, tmp_path / "w.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    np.testing.assert_array_equal(torch_file.read(tmp_path / "w.pt").table["b"], np.ones(7))
    data = bytearray((tmp_path / "w.pt").read_bytes())
    data[data.index(np.arange(1000, dtype=np.float32).tobytes()) + 402] ^= 0x40
    (tmp_path / "w.pt").write_bytes(data)
    table = torch_file.read(tmp_path / "w.pt").table
    if computes:
        assert zipfile.ZipFile(tmp_path / "w.pt").testzip() == "w/data/0"
        with pytest.raises(VitportError, match=r"damaged at w/data/0 \(its checksum differs\)"):
            table["a"]
    else:
        assert np.count_nonzero(table["a"] != np.arange(1000)) == 1
