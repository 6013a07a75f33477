"""Where `vitport evaluate --predictions` writes: a table that is its own, and nothing else."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest

import vit_cli
from vit_cli.main import main

WEIGHTS = Path(vit_cli.__file__).parent / "assets" / "digits_vit.safetensors"


@pytest.mark.parametrize("where", [".", "w.safetensors", "thesis.txt", "pipe.csv", "folder.csv", "no/p.csv"])
def test_what_is_no_table_is_refused_before_anything_is_evaluated(where, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(WEIGHTS, "w.safetensors")
    Path("thesis.txt").write_text("ten years")
    Path("folder.csv").mkdir()
    os.mkfifo("pipe.csv")
    monkeypatch.setattr("vit_jax.training.evaluation.evaluate.evaluate", lambda *_, **__: pytest.fail("evaluated"))
    assert main(["evaluate", "w.safetensors", "--data", "digits", "--predictions", where]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert Path("thesis.txt").read_text() == "ten years"
    assert Path("w.safetensors").read_bytes() == WEIGHTS.read_bytes()
    assert stat.S_ISFIFO(Path("pipe.csv").stat().st_mode)
    assert sorted(it.name for it in Path().iterdir()) == ["folder.csv", "pipe.csv", "thesis.txt", "w.safetensors"]


def test_the_source_s_own_table_of_labels_stays(tmp_path, capsys) -> None:
    (tmp_path / "labels.csv").write_text("image,label\na.png,0\n")
    table = str(tmp_path / "labels.csv")
    arguments = ["evaluate", str(WEIGHTS), "--data", str(tmp_path), "--labels", table, "--predictions", table]
    assert main(arguments) == 2
    assert "is another file of this command" in capsys.readouterr().err
    assert (tmp_path / "labels.csv").read_text() == "image,label\na.png,0\n"
