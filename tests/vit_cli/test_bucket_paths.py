"""Tables, predictions and certificates in a bucket, and predictions of its images."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

import conversion
from conversion.store import Objects, put
from tests.random_weights import random_params
from tests.stores import Store, running
from tests.vit_jax.training.data.folders import image_folder
from vit_cli.main import main
from vit_parity import exported
from vit_spec import ViTConfig


@pytest.fixture
def store(monkeypatch, tmp_path):
    with running("gs", monkeypatch, tmp_path / "cache") as found:
        yield found


@pytest.fixture
def weights(tmp_path) -> str:
    config = ViTConfig(image_size=(8, 12), patch_size=4, embed_dim=12, num_heads=3, depth=2, num_classes=3)
    path = tmp_path / "w.safetensors"
    conversion.save(conversion.Checkpoint.of(config, random_params(config, seed=0)), path, format="timm")
    return str(path)


def _photos(store: Store, folder: Path) -> tuple[str, str]:
    """A folder with a table of labels on the disk, and the same in the bucket."""
    image_folder(folder, classes=("test_images",))
    (folder / "test.csv").write_text("id,label\n" + "".join(f"{at:03},{at % 3}\n" for at in range(8)))
    put(folder, f"{store.address}/photos", overwrite=False)
    return str(folder), f"{store.address}/photos"


def _table(content: bytes | None, root: str) -> list[list[str]]:
    assert content is not None
    return [[cell.removeprefix(root) for cell in row] for row in csv.reader(io.StringIO(content.decode()))]


def test_evaluation_takes_its_table_from_a_bucket_and_writes_its_own_there(store, weights, tmp_path, capsys) -> None:
    """Oracle: the same on the disk. The images are not asked for again to name them."""
    disk, bucket = _photos(store, tmp_path / "photos")
    tables = {}
    for root, labels, out in (
        (disk, "test.csv", str(tmp_path / "out.csv")),
        (bucket, f"{bucket}/test.csv", f"{store.address}/tables/out.csv"),
    ):
        asked = store.asked
        assert main(["evaluate", weights, "--data", root, "--labels", labels, "--predictions", out]) == 0
        content = Path(out).read_bytes() if root == disk else Objects(f"{store.address}/tables").read("out.csv")
        tables[root] = _table(content, root)
    assert store.asked - asked < 8 + 12  # for lists and tables
    assert tables[disk] == tables[bucket]
    assert len(tables[disk]) == 9
    assert capsys.readouterr().err.count("images/s") == 0
    store.refused = "tables/other.csv"
    refused = (
        "evaluate",
        weights,
        "--data",
        bucket,
        "--labels",
        "test.csv",
        "--predictions",
        f"{store.address}/tables/other.csv",
    )
    assert main([*refused]) == 2
    assert "is refused" in capsys.readouterr().err
    assert main([*refused[:-1], f"{store.address}/tables/other.txt"]) == 2
    assert "its name must end in .csv" in capsys.readouterr().err


def test_predictions_of_the_images_of_a_bucket(store, weights, tmp_path, capsys) -> None:
    """Oracle: the same on the disk."""
    disk, bucket = _photos(store, tmp_path / "photos")
    for root, out in ((disk, str(tmp_path / "out.csv")), (bucket, f"{store.address}/out.csv")):
        assert main(["predict", root, "--weights", weights, "--predictions", out]) == 0
    expected = _table((tmp_path / "out.csv").read_bytes(), disk)
    assert _table(Objects(store.address).read("out.csv"), bucket) == expected
    assert len(expected) == 9
    assert not list((tmp_path / "cache").rglob("*.png"))
    capsys.readouterr()
    one = [main(["predict", f"{root}/test_images/003.png", "--weights", weights, "--json"]) for root in (disk, bucket)]
    assert one == [0, 0]
    first, second = (json.loads(text) for text in capsys.readouterr().out.replace("}\n{", "}\0{").split("\0"))
    assert first["top"] == second["top"]


def test_an_old_graph_never_lies_beside_new_parameters_in_a_bucket(store, weights, monkeypatch) -> None:
    """Oracle: what is there after each change of the bucket."""
    texts = iter((b"old", b"new"))

    def made(checkpoint, path, shape, raw, data) -> None:
        text = next(texts)
        path.write_bytes(text)
        data.path.write_bytes(text)

    monkeypatch.setitem(exported.KINDS, ".onnx", made)
    monkeypatch.setattr(exported, "run_back", lambda *_: exported.Difference("nothing", 0.0))
    command = ["export", weights, f"{store.address}/m.onnx", "--parameters", "beside", "--overwrite"]
    assert main(command) == 0
    objects, seen = Objects(store.address), []
    for name in ("write", "delete"):
        real = getattr(Objects, name)

        def noted(self, *given, real=real):
            real(self, *given)
            seen.append((objects.read("m.onnx"), objects.read("m.onnx.data")))

        monkeypatch.setattr(Objects, name, noted)
    assert main(command) == 0
    assert seen == [(None, b"old"), (None, b"new"), (b"new", b"new")]


@pytest.mark.slow
def test_a_certificate_lies_beside_what_it_certifies_in_a_bucket(store, weights) -> None:
    assert main(["convert", weights, f"{store.address}/out.safetensors", "--to", "timm", "--verify"]) == 0
    found = json.loads(Objects(store.address).read("out.safetensors.certificate.json") or b"")
    assert found["passed"] is True
    assert "every block agrees" in found["verdict"]
