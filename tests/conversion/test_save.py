"""A destination appears whole or not at all."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

import conversion
from conversion.containers import safetensors_file
from tests.conversion.canaries import ASYMMETRIC, assert_same_tensors, canary_checkpoint, canary_params
from vit_spec import VitportError


@pytest.mark.parametrize("format_name", ["timm", "flax"])
def test_an_existing_destination_is_kept_unless_overwriting_was_allowed(tmp_path, format_name) -> None:
    first, second = canary_checkpoint(), canary_checkpoint(ASYMMETRIC.replace(depth=1))
    conversion.save(first, tmp_path / "w", format=format_name)
    with pytest.raises(VitportError, match="exists already"):
        conversion.save(second, tmp_path / "w", format=format_name)
    assert_same_tensors(conversion.load(tmp_path / "w").params, first.params)
    conversion.save(second, tmp_path / "w", format=format_name, overwrite=True)
    assert_same_tensors(conversion.load(tmp_path / "w").params, second.params)
    assert [entry.name for entry in tmp_path.iterdir()] == ["w"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_write_that_breaks_off_leaves_nothing_and_keeps_the_old(tmp_path, monkeypatch, error) -> None:
    old = canary_checkpoint()
    conversion.save(old, tmp_path / "w", format="timm")
    calls = 0

    def breaking(name: str, done: int, total: int) -> None:
        nonlocal calls
        calls += 1
        if done == 5:
            raise error

    with pytest.raises((VitportError, KeyboardInterrupt)):
        conversion.save(old, tmp_path / "w", format="timm", overwrite=True, progress=breaking)
    assert calls == 6
    assert [entry.name for entry in tmp_path.iterdir()] == ["w"]
    assert_same_tensors(conversion.load(tmp_path / "w").params, old.params)


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors_file, "struct", SimpleNamespace(pack=full))
    with pytest.raises(VitportError, match=r"cannot be written \(No space left on device\)"):
        conversion.save(canary_checkpoint(), tmp_path / "w", format="timm")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_one_sentence(tmp_path) -> None:
    with pytest.raises(VitportError, match="cannot be written"):
        conversion.save(canary_checkpoint(), tmp_path / "no" / "w", format="timm")


def test_an_incomplete_checkpoint_is_not_written(tmp_path) -> None:
    params = canary_params(ASYMMETRIC)
    del params["blocks.3.mlp.fc2.bias"]
    with pytest.raises(VitportError, match=r"missing blocks\.3\.mlp\.fc2\.bias"):
        conversion.save(conversion.Checkpoint.of(ASYMMETRIC, params), tmp_path / "w", format="timm")
    assert list(tmp_path.iterdir()) == []


def test_a_format_that_is_only_read_says_which_is_written_instead(tmp_path) -> None:
    with pytest.raises(VitportError, match=r"openai-clip is read but not written: choose huggingface-clip\."):
        conversion.save(canary_checkpoint(), tmp_path / "w", format="openai-clip")
