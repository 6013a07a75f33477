"""The command run in this process, and small weights and images for it."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import conversion
from conversion import Checkpoint
from tests.random_weights import random_params
from tests.vit_cli.training import LENGTH, train
from vit_cli.main import main
from vit_spec import Preprocessing, ViTConfig

TINY = ViTConfig(
    image_size=(12, 20), patch_size=4, num_classes=7, embed_dim=24, depth=2, num_heads=3, mlp_hidden_dim=41
)
LABELS = ("ant", "bee", "cat", "dog", "eel", "fox", "gnu")


@dataclasses.dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


@pytest.fixture
def vitport(capsys) -> Callable[..., Result]:
    """``vitport("models", "--json")`` runs the command and tells its status and what it printed."""

    def run(*args: object) -> Result:
        capsys.readouterr()
        with warnings.catch_warnings(record=True) as caught:  # outside pytest they would be on stderr
            warnings.simplefilter("default", UserWarning)
            try:
                code = main([str(arg) for arg in args])
            except SystemExit as stop:
                code = int(stop.code or 0)
        out, err = capsys.readouterr()
        shown = [f"{entry.message}\n" for entry in caught if issubclass(entry.category, UserWarning)]
        return Result(code, out, "".join(shown) + err)

    return run


def tiny_checkpoint(**changes: object) -> Checkpoint:
    config = TINY.replace(**changes)
    preprocessing = Preprocessing(size=config.image_size, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), resize="squash")
    labels = LABELS if config.num_classes == len(LABELS) else None
    return Checkpoint.of(config, random_params(config, seed=5, dtype=np.float32), preprocessing, labels)


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> Path:
    """A classifier of seven animals, as one safetensors file."""
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    conversion.save(tiny_checkpoint(), path, format="timm")
    return path


@pytest.fixture(scope="session")
def headless(tmp_path_factory) -> Path:
    """The same without a head."""
    path = tmp_path_factory.mktemp("weights") / "headless.safetensors"
    conversion.save(tiny_checkpoint(num_classes=0), path, format="timm")
    return path


@pytest.fixture(scope="session")
def image(tmp_path_factory) -> Path:
    """Noise of 30 x 50 pixels."""
    path = tmp_path_factory.mktemp("images") / "noise.png"
    pixels = np.random.default_rng(0).integers(0, 256, (30, 50, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory) -> Path:
    """The work directory of a small run on one device, from its first step to its last."""
    workdir = tmp_path_factory.mktemp("undisturbed") / "run"
    train(workdir, *LENGTH)
    return workdir


def _listing(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.fixture
def refused(vitport, tmp_path, monkeypatch) -> Callable[..., str]:
    """Runs a command in a folder of its own and checks that it is refused; gives the sentence."""
    monkeypatch.chdir(tmp_path)

    def check(*args: object) -> str:
        before = _listing(tmp_path)
        result = vitport(*args)
        assert result.code == 2, result
        assert result.out == ""
        assert result.err.startswith("vitport: ")
        assert result.err.count("\n") == 1
        assert result.err.endswith(".\n")
        assert "Traceback" not in result.err
        assert _listing(tmp_path) == before
        return result.err

    return check
