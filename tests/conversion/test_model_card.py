"""The model card of a Hugging Face folder. Oracle: huggingface_hub's own reader of cards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import conversion
import vit_cli
from vit_cli.main import main

hub = pytest.importorskip("huggingface_hub")

WEIGHTS = Path(vit_cli.__file__).parent / "assets" / "digits_vit.safetensors"


def _card(folder: Path) -> tuple[dict[str, object], str]:
    card = hub.ModelCard.load(folder / "README.md")
    return card.data.to_dict(), card.text


def test_a_card_says_what_was_measured(tmp_path, capsys) -> None:
    folder = tmp_path / "digits"
    assert main(["convert", str(WEIGHTS), str(folder), "--to", "huggingface-vit"]) == 0
    data, text = _card(folder)
    assert data == {
        "library_name": "transformers", "pipeline_tag": "image-classification", "tags": ["vision", "vit", "vitport"],
    }  # fmt: skip
    assert "Not measured" in text
    assert "# ViTForImageClassification" in text
    assert "10 classes" in text
    assert "8x8 pixels, 1 channels" in text
    assert main(["convert", str(WEIGHTS), str(folder), "--to", "huggingface-vit", "--overwrite", "--verify"]) == 0
    said = capsys.readouterr().out
    data, text = _card(folder)
    assert "Not measured" not in text
    proof = json.loads(Path(f"{folder}.certificate.json").read_text())
    assert proof["verdict"] in text
    assert proof["verdict"] in said
    parity = text.partition("## Parity")[2]
    for one in proof["comparisons"]:
        assert f"| {one['actual']} | {one['image']} |" in parity
    assert conversion.load(folder).config.num_classes == 10


def test_a_card_that_somebody_wrote_stays(tmp_path, capsys) -> None:
    folder = tmp_path / "digits"
    again = ["convert", str(WEIGHTS), str(folder), "--to", "huggingface-vit", "--overwrite"]
    assert main(again) == 0
    (folder / "README.md").write_text("# Mine\n")
    capsys.readouterr()
    assert main(again) == 2
    assert "holds 'README.md', which somebody else wrote" in capsys.readouterr().err
    assert (folder / "README.md").read_text() == "# Mine\n"


def test_names_of_classes_do_not_break_the_card(tmp_path) -> None:
    checkpoint = conversion.load(WEIGHTS)
    names = ("a|b", "<script>", "x\ny", "---", *map(str, range(4, 10)))
    named = conversion.Checkpoint(checkpoint.config, checkpoint.preprocessing, checkpoint.params, names)
    conversion.save(named, tmp_path / "digits", format="huggingface-vit")
    data, text = _card(tmp_path / "digits")
    assert data["tags"] == ["vision", "vit", "vitport"]
    assert "<script>" not in text
    row = next(line for line in text.splitlines() if line.startswith("| output"))
    assert "a\\|b" in row
    assert "9" in row
