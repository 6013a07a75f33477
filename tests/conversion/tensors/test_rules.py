"""The rule engine on small hand-made tables. Oracle: numpy's own concatenate and transpose."""

from __future__ import annotations

import numpy as np
import pytest

from conversion.tensors.rules import Rule, Rules, joined, module
from conversion.tensors.table import Tensor, TensorTable
from conversion.tensors.transforms import Axes
from tests.conversion.canaries import assert_same_tensors
from vit_spec import ViTConfig, VitportError

RULES = Rules(
    (
        *joined("blocks.{i}.attn.qkv", "layer.{i}.q", "layer.{i}.k", "layer.{i}.v"),
        *module("norm", "final"),
        Rule("conv", "kernel", Axes((3, 2, 0, 1))),
    )
)


def _file(depth: int = 12) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    parts = {f"layer.{i}.{part}": rng.normal(size=(3, 5)) for i in range(depth) for part in "qkv"}
    file = {f"{name}.weight": array for name, array in parts.items()}
    file |= {f"{name}.bias": array[:, 0] for name, array in parts.items()}
    return file | {"final.weight": rng.normal(size=4), "kernel": rng.normal(size=(2, 3, 4, 5))}


def test_read_joins_and_transposes_as_numpy_does() -> None:
    file = _file()
    table, unknown = RULES.read(TensorTable.of(file))
    assert unknown == []
    for i in (0, 1, 10, 11):
        stacked = np.concatenate([file[f"layer.{i}.{part}.weight"] for part in "qkv"])
        assert (table[f"blocks.{i}.attn.qkv.weight"] == stacked).all()
    assert (table["conv"] == file["kernel"].transpose(3, 2, 0, 1)).all()
    assert table.spec("conv") == ((5, 4, 2, 3), np.dtype(float))


def test_write_undoes_read() -> None:
    file = _file()
    assert_same_tensors(RULES.write(RULES.read(TensorTable.of(file))[0], ViTConfig()), file)


def test_unknown_names_are_handed_back() -> None:
    assert RULES.read(TensorTable.of({"final.weight": np.zeros(4), "other": np.zeros(1)}))[1] == ["other"]


def test_a_part_without_its_siblings_is_an_error_that_names_them() -> None:
    file = _file(depth=1)
    del file["layer.0.k.weight"]
    with pytest.raises(VitportError, match=r"came without layer\.0\.k\.weight"):
        RULES.read(TensorTable.of(file))


def test_parts_of_different_dtypes_are_refused() -> None:
    file = _file(depth=1)
    file["layer.0.k.bias"] = file["layer.0.k.bias"].astype(np.float32)
    with pytest.raises(VitportError, match="different dtypes"):
        RULES.read(TensorTable.of(file))


def test_parts_that_do_not_fit_together_are_refused() -> None:
    file = _file(depth=1)
    file["layer.0.k.weight"] = file["layer.0.k.weight"][:, :4]
    with pytest.raises(VitportError, match="cannot become"):
        RULES.read(TensorTable.of(file))


def test_two_sources_of_one_target_are_refused() -> None:
    rules = Rules((*module("norm", "final"), *module("norm", "last")))
    with pytest.raises(VitportError, match=r"norm\.weight is given twice"):
        rules.read(TensorTable.of({"final.weight": np.zeros(4), "last.weight": np.zeros(4)}))


def test_a_canonical_name_that_a_format_cannot_hold_is_refused() -> None:
    with pytest.raises(VitportError, match="no place for reg_token"):
        RULES.write(TensorTable.of({"reg_token": np.zeros((1, 1, 4))}), ViTConfig())


def test_nothing_is_read_before_it_is_asked_for() -> None:
    from conversion.tensors.table import Tensor

    reads: list[str] = []

    def source(name: str, shape: tuple[int, ...]) -> Tensor:
        return Tensor(shape, np.dtype(float), lambda: (reads.append(name), np.zeros(shape))[1])

    names = {f"layer.0.{part}.weight": source(part, (3, 5)) for part in "qkv"} | {"kernel": source("c", (1, 2, 3, 4))}
    table, _ = RULES.read(TensorTable(names))
    assert table.spec("blocks.0.attn.qkv.weight")[0] == (9, 5)
    assert reads == []
    assert table["blocks.0.attn.qkv.weight"].shape == (9, 5)
    assert reads == ["q", "k", "v"]


@pytest.mark.parametrize("order", [["q", "k", "v"], ["v", "q", "k"]])
def test_a_tensor_that_becomes_three_is_read_once_for_the_three_and_anew_for_the_next(order) -> None:
    """Query, key and value of one matrix, with those of its bias in between, as sorted names have them."""
    reads: list[str] = []

    def tensor(name: str, array: np.ndarray) -> Tensor:
        return Tensor(array.shape, array.dtype, lambda: (reads.append(name), array)[1])

    arrays = {f"blocks.{i}.attn.qkv.{leaf}": np.arange(6.0) + i for i in range(2) for leaf in ("weight", "bias")}
    table = TensorTable({name: tensor(name, array) for name, array in arrays.items()})
    written = Rules(joined("blocks.{i}.attn.qkv", "{i}.q", "{i}.k", "{i}.v")).write(table, ViTConfig())
    for _ in range(2):
        reads.clear()
        for i in range(2):
            for part in order:
                for leaf in ("weight", "bias"):
                    start = 2 * "qkv".index(part)
                    expected = arrays[f"blocks.{i}.attn.qkv.{leaf}"][start : start + 2]
                    assert (written[f"{i}.{part}.{leaf}"] == expected).all()
        assert sorted(reads) == sorted(arrays)
    reads.clear()
    assert (written["0.q.bias"] == written["0.q.bias"]).all()
    assert reads == ["blocks.0.attn.qkv.bias"] * 2
