"""A disk that fills while a file is written, in every format. Oracle: the folder as it was before.

The disk is a limit on the size of a process's files (RLIMIT_FSIZE), which any user may set: a write beyond it fails as
one on a full disk does. It stands at nothing, in the middle, and one byte before the end of the largest file; early for
orbax, whose threads end at no certain byte.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

import conversion
from tests.conversion.bad_files import CONFIG, PARAMS, files_of
from vit_spec import VitportError

FORMATS = {
    "timm": {}, "flax": {}, "google": {}, "google-linen": {}, "huggingface": {}, "torchvision": {"activation": "gelu"},
    "big-vision-scan": {"class_token": False, "pool": "map", "pos_embed": "patch"},
}  # fmt: skip
"""One format of every writer, with the fields of a model that it holds."""

SCRIPT = """
import contextlib, io, json, resource, sys
from pathlib import Path
import orbax.checkpoint, torch
from vit_cli.main import main
folder = Path(sys.argv[1])
results = []
for source, name, limits in json.loads(sys.argv[2]):
    for limit in limits:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        err = io.StringIO()
        with contextlib.redirect_stderr(err):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
            try:
                code = main(["convert", source, str(folder / name), "--to", name, "--overwrite"])
            except BaseException as error:
                code = repr(error)
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        results.append((name, limit, code, err.getvalue()))
json.dump(results, sys.stdout)
"""


def listing(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def test_a_full_disk_is_one_sentence_and_leaves_the_old_file_and_nothing_else(tmp_path) -> None:
    from tests.random_weights import random_params

    (tmp_path / "out").mkdir()
    jobs = []
    for name, changes in FORMATS.items():
        config = CONFIG.replace(**changes)
        params = random_params(config, 5, "float32") if changes else PARAMS
        checkpoint = conversion.Checkpoint.of(config, params)
        source = tmp_path / f"{name}.safetensors"
        conversion.save(checkpoint, source, format="timm", activation="keep")
        conversion.save(checkpoint, tmp_path / "out" / name, format=name, activation="keep")
        largest = max(file.stat().st_size for file in files_of(tmp_path / "out" / name))
        # What orbax writes in several threads ends at no certain byte, nor in a certain file.
        limits = [0, 300, 5000] if name == "flax" else [0, largest // 3, largest - 1]
        jobs.append((str(source), name, limits))
    before = listing(tmp_path / "out")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, tmp_path / "out", json.dumps(jobs)],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    results = json.loads(done.stdout.splitlines()[-1])
    assert len(results) == 3 * len(FORMATS)
    for name, limit, code, err in results:
        case = (name, limit, code, err)
        assert code == 2, case
        assert err.count("\n") == 1, case
        assert err.startswith("vitport: "), case
        assert "cannot be written" in err, case
        assert "Traceback" not in err, case
    assert listing(tmp_path / "out") == before


def test_a_folder_whose_replacement_cannot_be_renamed_is_put_back(tmp_path, monkeypatch) -> None:
    """The old folder was moved aside already."""
    conversion.save(conversion.Checkpoint.of(CONFIG, PARAMS), tmp_path / "w", format="huggingface")
    before = listing(tmp_path)
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if self.name.endswith(".partial"):
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(VitportError, match="cannot be written"):
        conversion.save(conversion.Checkpoint.of(CONFIG, PARAMS), tmp_path / "w", format="huggingface", overwrite=True)
    assert listing(tmp_path) == before


def test_what_orbax_reports_after_the_error_is_not_printed(tmp_path, monkeypatch, caplog) -> None:
    """Its tasks report a failed write when they are collected, which may be later than our own sentence."""
    from conversion.containers import orbax_folder

    def failing(folder: Path, *_: object) -> None:
        tasks.append(str(folder))
        raise ValueError("No space left on device")

    tasks: list[str] = []
    monkeypatch.setattr(orbax_folder, "_put_arrays", failing)
    with pytest.raises(VitportError, match="No space left on device"):
        conversion.save(conversion.Checkpoint.of(CONFIG, PARAMS), tmp_path / "w", format="flax")
    caplog.clear()
    caplog.set_level(logging.ERROR, logger="asyncio")  # a training run in this process may have raised it
    asyncio_log = logging.getLogger("asyncio")
    asyncio_log.error("Future exception was never retrieved: %s/manifest.ocdbt", tasks[0])
    asyncio_log.error("Future exception was never retrieved: /elsewhere")
    assert [record.getMessage() for record in caplog.records] == ["Future exception was never retrieved: /elsewhere"]
