"""Tables read in turn. Oracle: what was put in, and who holds how much when."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from conversion.tensors import table as module
from conversion.tensors.table import Tensor, TensorTable
from vit_spec import VitportError


def test_in_turn_gives_every_array_in_the_order_asked_for() -> None:
    arrays = {name: np.full(3, at) for at, name in enumerate("abcdef")}
    order = ["d", "a", "f", "b"]
    found = list(TensorTable.of(arrays).in_turn(order))
    assert [name for name, _ in found] == order
    assert all((array == arrays[name]).all() for name, array in found)
    assert list(TensorTable({}).in_turn([])) == []


def test_the_next_two_arrays_are_read_while_one_is_in_use_and_never_more() -> None:
    read = {name: threading.Event() for name in "abcd"}

    def reader(name: str):
        def run() -> np.ndarray:
            read[name].set()
            return np.zeros(1)

        return run

    tensors = TensorTable({name: Tensor((1,), np.dtype(np.float64), reader(name)) for name in "abcd"})
    for name, _ in tensors.in_turn("abcd"):
        if name == "a":
            assert read["c"].wait(5)
            assert not read["d"].wait(0.1)


def test_large_arrays_are_not_held_two_at_a_time(monkeypatch) -> None:
    monkeypatch.setattr(module, "_AHEAD", 15)
    read: list[str] = []
    tensors = TensorTable(
        {name: Tensor((1,), np.dtype(np.float64), lambda name=name: read.append(name) or np.zeros(1)) for name in "abc"}
    )
    for name, _ in tensors.in_turn("abc"):
        assert read[-1] == name


def test_an_error_while_reading_comes_out_where_the_array_is_asked_for() -> None:
    def broken() -> np.ndarray:
        raise VitportError("It is damaged.")

    good = Tensor((1,), np.dtype(np.float64), lambda: np.zeros(1))
    tensors = TensorTable({"a": good, "b": Tensor((1,), np.dtype(np.float64), broken), "c": good})
    seen: list[str] = []
    with pytest.raises(VitportError, match="damaged"):
        seen.extend(name for name, _ in tensors.in_turn("abc"))


def test_who_stops_asking_stops_the_reading() -> None:
    read: list[str] = []
    tensors = TensorTable(
        {
            name: Tensor((1,), np.dtype(np.float64), lambda name=name: read.append(name) or np.zeros(1))
            for name in "abcd"
        }
    )
    before = threading.active_count()
    turns = tensors.in_turn("abcd")
    next(turns)
    turns.close()
    assert threading.active_count() == before
    assert "d" not in read


def test_nbytes_reads_nothing() -> None:
    tensor = Tensor((2, 3), np.dtype(np.float16), lambda: pytest.fail("was read"))
    assert TensorTable({"a": tensor}).nbytes("a") == 12
