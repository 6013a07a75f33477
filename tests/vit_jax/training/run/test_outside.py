"""Where a run may write. Oracle: opening the data again, with what a run leaves in its work directory."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests.vit_jax.training.data.folders import image_folder
from vit_jax.training.data import Data, open_source
from vit_jax.training.run.outside import check_outside
from vit_spec import VitportError


def _split(root: Path) -> None:
    image_folder(root / "train")
    image_folder(root / "val")


def _images() -> list[int]:
    return [len(source) for source in (open_source("photos", "train"), open_source("photos", "validation")) if source]


@pytest.mark.parametrize(
    ("splits", "place", "reads_it"),
    [
        (False, "photos/run", True),
        (False, "photos/ant/run", True),
        (False, "run", False),
        (False, "photos_run", False),
        (True, "photos/run", False),
        (True, "photos/train/run", True),
        (True, "photos/val/ant/run", True),
    ],
)
def test_a_work_directory_is_refused_where_its_charts_would_be_read(
    splits, place, reads_it, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (_split if splits else image_folder)(tmp_path / "photos")
    refused = ""
    try:
        check_outside(place, Data("photos"))
    except VitportError as error:
        refused = str(error)
    before = _images()
    Path(place).mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(Path(place, "curves.png"))
    after = _images()
    assert (after != before) == reads_it
    assert refused.startswith(f"{place} lies among the images in photos, and ") == bool(refused) == reads_it


@pytest.mark.parametrize("place", ["photos", "photos/", "photos/../photos", "valid"])
def test_the_datas_own_folder_is_refused(place, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    _split(tmp_path / "photos")
    image_folder(tmp_path / "valid")
    with pytest.raises(VitportError, match=f"^{place} lies among the images in (photos|valid), "):
        check_outside(place, Data("photos", validation="valid"))


def test_a_folder_called_as_data_that_are_none_is_free(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    check_outside("digits", Data("digits"))
    check_outside("gs://bucket/run", Data("digits"))
