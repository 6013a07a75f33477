"""The model card (README.md) of a Hugging Face folder: what the weights are, where they are from, what was measured."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from conversion.checkpoint import Checkpoint
from conversion.containers.file_checks import read_regular
from conversion.source import CHANGED
from vit_spec import count_parameters
from vit_spec.printable import printable

CARD = "README.md"
_OURS = "<!-- Written by vitport, which replaces this file as long as this line is in it. -->"
_PARITY = "\n## Parity\n\n"
_MOST_BYTES = 1 << 20
_FEW = 20
"""Names of classes that are listed."""


def write_card(folder: Path, checkpoint: Checkpoint, config_json: Mapping[str, Any]) -> None:
    """A card without parity, which :func:`write_parity` fills in."""
    (folder / CARD).write_text(_front(config_json) + _body(checkpoint, config_json) + _PARITY + _UNMEASURED, "utf-8")


def write_parity(folder: Path, verdict: str, rows: Sequence[Sequence[str]]) -> None:
    """What a verification measured, in place of what the card said of parity. Nothing where there is no card of ours.

    Args:
        verdict: in a sentence.
        rows: what was compared with the source, the image, the layer with the largest difference, that difference
            relative to the largest value, what rounding explains, and the outcome.
    """
    if not is_ours(folder):
        return
    card = folder / CARD
    header = ("compared with the source", "image", "where", "of largest", "rounding", "")
    table = "\n".join(f"| {' | '.join(_plain(cell) for cell in row)} |" for row in (header, ["---"] * 6, *rows))
    card.write_text(f"{card.read_text('utf-8').partition(_PARITY)[0]}{_PARITY}{_plain(verdict)}.\n\n{table}\n", "utf-8")


def is_ours(folder: Path) -> bool:
    """Whether the folder's card is one that may be replaced."""
    card = folder / CARD
    return card.is_file() and _OURS.encode() in read_regular(card, _MOST_BYTES)


def _front(config_json: Mapping[str, Any]) -> str:
    """YAML, of which JSON's strings and lists are a part. The license is the source's, which no file says."""
    classifies = "id2label" in config_json
    values = {
        "library_name": "transformers",
        "pipeline_tag": "image-classification" if classifies else "image-feature-extraction",
        "tags": ["vision", str(config_json["model_type"]), "vitport"],
    }
    return "---\n" + "".join(f"{name}: {json.dumps(value)}\n" for name, value in values.items()) + "---\n"


def _body(checkpoint: Checkpoint, config_json: Mapping[str, Any]) -> str:
    config, pre = checkpoint.config, checkpoint.preprocessing
    (architecture,) = config_json["architectures"]
    height, width = config.image_size
    classes = "no classifier" if not config.num_classes else f"{config.num_classes} classes"
    if checkpoint.several_labels:
        classes += ", of which an image may have several (sigmoid)"
    if checkpoint.labels:
        shown = ", ".join(map(_plain, checkpoint.labels[:_FEW]))
        classes += f": {shown}{', …' if len(checkpoint.labels) > _FEW else ''}"
    source = checkpoint.provenance
    notes = "".join(f"- {_plain(note)}\n" for note in source.notes if note.startswith(CHANGED))
    return f"""{_OURS}

# {architecture}

| | |
|---|---|
| parameters | {count_parameters(config) / 1e6:.2f} M |
| images | {height}x{width} pixels, {len(pre.mean)} channels, resized by `{pre.resize}` with {pre.interpolation} |
| mean, standard deviation | {_numbers(pre.mean)}; {_numbers(pre.std)} |
| output | {classes} |

```python
import transformers

model = transformers.{architecture}.from_pretrained("THIS_FOLDER")
```

`vitport convert THIS_FOLDER OUT --to FORMAT` writes the weights for timm, JAX and others.

## Source

Format `{source.format}`, converted by [vitport](https://github.com/vitport/vitport). The license is that of the source.

{notes}"""


_UNMEASURED = "Not measured: `vitport convert --verify` measures it.\n"


def _plain(text: str) -> str:
    """In one line, without what Markdown takes for a table or a tag."""
    return printable(text).replace("|", "\\|").replace("<", "&lt;")


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
