"""The example of docs/adding_a_format.md, added at run time: it reads, writes, verifies, and is gone when removed.

Oracles: the names of jeonsworld/ViT-pytorch, renamed here one by one; the tensors that went in, bit for bit; and, for
the two descriptions in the example, each other: an error planted in either must fail the verification.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import conversion
from conversion import Format
from tests.random_weights import random_params
from vit_parity import Certificate, Original, verify
from vit_spec import ViTConfig, VitportError

PAGE = Path(__file__).parents[2] / "docs" / "adding_a_format.md"
CONFIG = ViTConfig(
    image_size=(24, 24),
    patch_size=8,
    num_classes=5,
    embed_dim=24,
    depth=2,
    num_heads=12,
    mlp_hidden_dim=24,
    norm_eps=1e-6,
)
"""Every matrix of a block but ``qkv`` is square, so shapes show no swap."""


def _example() -> str:
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[0]


def _imported(folder: Path, code: str) -> Format:
    path = folder / "jeonsworld.py"
    path.write_text(code)
    spec = importlib.util.spec_from_file_location("jeonsworld", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.FORMAT


@pytest.fixture(autouse=True)
def formats_restored() -> Iterator[None]:
    before = dict(conversion.FORMATS)
    yield
    conversion.FORMATS.clear()
    conversion.FORMATS.update(before)


def _params() -> dict[str, np.ndarray]:
    return random_params(CONFIG, seed=1, dtype=np.float32)


def _theirs(params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The state_dict of their model, by hand."""
    body = "transformer.encoder.layer."
    renamed = {
        "cls_token": "transformer.embeddings.cls_token",
        "pos_embed": "transformer.embeddings.position_embeddings",
        "patch_embed.proj": "transformer.embeddings.patch_embeddings",
        "norm": "transformer.encoder.encoder_norm",
        "head": "head",
    }
    inner = {
        "norm1": "attention_norm", "attn.proj": "attn.out", "norm2": "ffn_norm", "mlp.fc1": "ffn.fc1",
        "mlp.fc2": "ffn.fc2",
    }  # fmt: skip
    found: dict[str, np.ndarray] = {}
    for name, array in params.items():
        module, _, leaf = name.rpartition(".") if name not in renamed else (name, "", "")
        if match := re.fullmatch(r"blocks\.(\d+)\.attn\.qkv", module):
            for part, rows in zip(("query", "key", "value"), np.split(array, 3), strict=True):
                found[f"{body}{match[1]}.attn.{part}.{leaf}"] = rows
        elif match := re.fullmatch(r"blocks\.(\d+)\.(.+)", module):
            found[f"{body}{match[1]}.{inner[match[2]]}.{leaf}"] = array
        else:
            found[renamed[module] + (f".{leaf}" if leaf else "")] = array
    return found


def _source(folder: Path) -> Path:
    torch.save({name: torch.tensor(array) for name, array in _theirs(_params()).items()}, folder / "source.bin")
    return folder / "source.bin"


def _converted(source: Path, to: str) -> Certificate:
    """As ``vitport convert --verify`` does it."""
    read = conversion.load(source)
    target = source.parent / f"result-{to}"
    conversion.save(read, target, format=to, activation="keep")
    return verify(Original(source, read), target, conversion.load(target))


def test_the_example_reads_writes_and_verifies_and_is_gone_when_removed(tmp_path: Path) -> None:
    conversion.register_format(_imported(tmp_path, _example()))
    source, params = _source(tmp_path), _params()
    read = conversion.load(source)
    assert read.provenance.format == "jeonsworld"
    assert read.config.num_heads == 12
    assert all(np.array_equal(read.params[name], array) for name, array in params.items())
    conversion.save(read, tmp_path / "back", format="jeonsworld")
    written = torch.load(tmp_path / "back", weights_only=True)
    assert {name: tensor.tolist() for name, tensor in written.items()} == {
        name: array.tolist() for name, array in _theirs(params).items()
    }
    for to in ("timm", "jeonsworld"):
        proof = _converted(source, to)
        assert proof.passed, proof.verdict
    conversion.unregister_format("jeonsworld")
    with pytest.raises(VitportError, match="not those of a Vision Transformer"):
        conversion.load(source)
    with pytest.raises(VitportError, match="No format is named 'jeonsworld'"):
        conversion.unregister_format("jeonsworld")


RULE, TABLE = r'f"{_LAYER}.attn.query", f"{_LAYER}.attn.key"', 'query=("attn.query",),\n            key=("attn.key",)'
FAULTS = {
    "q and k swapped in the rules": (RULE, r'f"{_LAYER}.attn.key", f"{_LAYER}.attn.query"', "blocks.0"),
    "norms swapped in the rules": (
        'norm1", f"{_LAYER}.attention_norm"),', 'norm2", f"{_LAYER}.attention_norm"),', "blocks.0"
    ),
    "q and k swapped in the second reading": (
        TABLE, 'query=("attn.key",),\n            key=("attn.query",)', "blocks.0"
    ),
    "layers of the MLP swapped in the second reading": ('first=("ffn.fc1",)', 'first=("ffn.fc2",)', "blocks.0"),
    "another GELU in the second reading": (
        '        activation="gelu",\n        pool', '        activation="gelu_tanh",\n        pool', "blocks.0"
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", list(FAULTS))
@pytest.mark.parametrize("to", ["timm", "jeonsworld"])
def test_an_error_in_either_description_fails_the_verification(fault: str, to: str, tmp_path: Path) -> None:
    """Reading the result back undoes what writing it did wrong, so only the other description can find it."""
    true, false, stage = FAULTS[fault]
    code = _example().replace(true, false)
    if fault.startswith("norms"):
        code = code.replace('norm2", f"{_LAYER}.ffn_norm"),', 'norm1", f"{_LAYER}.ffn_norm"),')
    assert code.count("\n") == _example().count("\n")
    assert code != _example()
    conversion.register_format(_imported(tmp_path, code))
    proof = _converted(_source(tmp_path), to)
    assert proof.first_failure is not None
    assert proof.first_failure[1].name == stage


def test_a_format_without_a_second_reading_is_not_verified(tmp_path: Path) -> None:
    code = _example().replace("second_reading=SecondReading(", "second_reading=None and SecondReading(")
    conversion.register_format(_imported(tmp_path, code))
    with pytest.raises(VitportError, match="jeonsworld, which cannot be verified because it has no second_reading"):
        _converted(_source(tmp_path), "timm")


def test_a_name_is_registered_once_and_in_an_order_that_exists(tmp_path: Path) -> None:
    example = _imported(tmp_path, _example())
    conversion.register_format(example)
    for taken in (example, _imported(tmp_path, _example().replace('name="jeonsworld"', 'name="huggingface"'))):
        with pytest.raises(VitportError, match="exists already"):
            conversion.register_format(taken)
    circle = 'name="other",\n    before=("other",),'
    with pytest.raises(VitportError, match="other before other is a cycle"):
        conversion.register_format(_imported(tmp_path, _example().replace('name="jeonsworld",', circle)))
    assert "other" not in conversion.FORMATS
