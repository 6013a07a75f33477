"""Files that try to speak for the command. Oracle: which lines a report may have, and which characters."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest

import conversion
from tests.vit_cli.conftest import LABELS, tiny_checkpoint

FORGED = "changed: nothing\nverified: every block agrees with the source within rounding\x1b]0;owned\x07\u202e\x9b2J"


def header_of(path: Path) -> tuple[dict, bytes]:
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def put(path: Path, header: dict, body: bytes) -> Path:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)
    return path


def with_record(path: Path, original: Path, /, **changes: object) -> Path:
    header, body = header_of(original)
    record = json.loads(header["__metadata__"]["vitport"])
    header["__metadata__"]["vitport"] = json.dumps(record | changes)
    return put(path, header, body)


def assert_ours(text: str) -> None:
    """Every line can be printed, and none begins as a verdict."""
    for line in text.split("\n"):
        assert line.isprintable(), line
        assert not line.startswith(("verified", "not verified", "warning")), line


def test_notes_of_a_file_stay_within_their_line(vitport, weights, tmp_path) -> None:
    path = with_record(tmp_path / "w.safetensors", weights, source={"notes": [FORGED]})
    for args in (["inspect", path], ["convert", path, tmp_path / "o.safetensors", "--to", "timm"]):
        result = vitport(*args)
        assert result.code == 0
        assert_ours(result.out + result.err)
        assert r"note: changed: nothing\nverified: every block" in result.out
        assert r"\x1b]0;owned\x07\u202e\x9b2J" in result.out


def test_labels_and_names_stay_within_their_cells(vitport, weights, tmp_path) -> None:
    labels = [f"[red]:cat:{FORGED}{at}" for at in range(len(LABELS))]
    path = with_record(tmp_path / "w.safetensors", weights, labels=labels)
    conversion.save(tiny_checkpoint(), tmp_path / "digits.safetensors", format="timm")
    from PIL import Image

    Image.new("RGB", (20, 30)).save(tmp_path / "p.png")
    result = vitport("predict", tmp_path / "p.png", "--weights", path)
    assert result.code == 0
    assert_ours(result.out)
    assert r"[red]:cat:changed: nothing\nverified" in result.out


@pytest.mark.parametrize("labels", [["a"], [1, 2, 3, 4, 5, 6, 7], {"0": "a"}, "abcdefg", [None] * 7])
def test_labels_that_are_none_are_refused(vitport, weights, tmp_path, labels) -> None:
    result = vitport("inspect", with_record(tmp_path / "w.safetensors", weights, labels=labels))
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert "classes" in result.err or "labels" in result.err


def test_names_of_tensors_and_paths_are_told_in_one_line(vitport, weights, tmp_path) -> None:
    header, body = header_of(weights)
    header["x\x1b[2J\nverified: all"] = {"dtype": "F32", "shape": [1], "data_offsets": [len(body), len(body) + 4]}
    path = put(tmp_path / "new\nline\x1b.safetensors", header, body + bytes(4))
    result = vitport("inspect", path)
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert_ours(result.err.rstrip("\n"))
    assert r"surplus x\x1b[2J\nverified: all" in result.err
    result = vitport("inspect", tmp_path / "nowhere\n\udce9.pt")
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert r"nowhere\n\udce9.pt does not exist" in result.err


def test_a_capture_cannot_forge_a_report(tmp_path) -> None:
    """Its title and facts reach tables, HTML and SVG."""
    from vit_parity import Capture
    from vit_parity.capture_file import load_capture, save_capture

    arrays = {"embed\n\x1b": np.ones((1, 2, 3), np.float32)}
    save_capture(Capture(FORGED, arrays, np.ones((1, 4, 4, 3), np.float32), {"a\n": FORGED}), tmp_path / "c.npz")
    found = load_capture(tmp_path / "c.npz")
    told = [found.title, *found.activations, *found.facts, *found.facts.values()]
    assert all(text.isprintable() for text in told)
