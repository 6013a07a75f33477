"""Options files of microsoft/Swin-Transformer beside weights that do not tell their windows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

import conversion
from tests.conversion.swin.models import BASE, weights
from vit_spec import SwinConfig, VitportError

CONFIG = BASE.replace(version=2, window_sizes=8, pretrained_window_sizes=((6, 6), (4, 4)), window_rule="axis",
                      pad_order="roll_pad", image_size=64, mlp_ratio=4.0)  # fmt: skip
OPTIONS = """\
DATA:
  IMG_SIZE: 64
MODEL:
  TYPE: swinv2
  NAME: swinv2_of_a_test
  DROP_PATH_RATE: 0.2
  SWINV2:
    PATCH_SIZE: 2
    EMBED_DIM: 8
    DEPTHS: [ 2, 2 ]
    NUM_HEADS: [ 2, 4 ]
    WINDOW_SIZE: 8
    PRETRAINED_WINDOW_SIZES: [ 6, 4 ]
TRAIN:
  WEIGHT_DECAY: 1e-8
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file(weights(CONFIG, dtype=np.float32), path)
    return path


def described(file: Path, text: str, name: str = "options.yaml") -> SwinConfig:
    (file.parent / name).write_text(text)
    found = conversion.load(file, config=file.parent / name).config
    assert isinstance(found, SwinConfig)
    return found


@pytest.mark.parametrize("name", ["options.yaml", "options.yml", "config.json"])
def test_windows_and_image_size_are_told(file: Path, name: str) -> None:
    """A run of Microsoft's code writes YAML into a config.json."""
    assert described(file, OPTIONS, name) == CONFIG.replace(drop_path_rate=0.2)


def test_fields_of_a_swin_config_in_json_are_told(file: Path) -> None:
    assert described(file, CONFIG.to_json(), "a.json") == CONFIG
    some = '{"window_size": 8, "pretrained_window_sizes": [[6, 6], 4], "img_size": 64}'
    assert described(file, some, "b.json") == CONFIG


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("EMBED_DIM: 8", "EMBED_DIM: 96"), "embed_dim=96 contradicts the file"),
        (("swinv2\n", "swin_moe\n"), "type 'swin_moe', which vitport does not have"),
        (("DATA:\n", "BASE: ['other.yaml']\nDATA:\n"), "takes options from other.yaml too"),
        (("DEPTHS: [", "DEPTHS: [["), "cannot be read as YAML"),
        (("MODEL:", "MODELS:"), "has no section MODEL"),
        (("WINDOW_SIZE: 8", "WINDOW_SIZE: wide"), "window_sizes='wide' does not fit"),
        (("TYPE: swinv2", "TYPE: !!python/object/apply:os.system [ls]"), "cannot be read as YAML"),
    ],
)
def test_other_options_are_refused(file: Path, change: tuple[str, str], message: str) -> None:
    with pytest.raises(VitportError, match=message):
        described(file, OPTIONS.replace(*change, 1))


def test_a_program_is_not_run(file: Path) -> None:
    with pytest.raises(VitportError, match="is a program, as the configs of OpenMMLab are, and is not run"):
        described(file, "raise SystemExit", "swin_tiny.py")
