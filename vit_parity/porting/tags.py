"""``tag("name", x)``: an array in a JAX function that :func:`vit_parity.porting.capture` sees.

A tag is the identity. It compiles to nothing, and passes through jit, scan, vmap, remat and grad. Under vmap the tagged
array is the whole batch, its batch axis first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")
Marker = Callable[[Any, str, str], Any]
"""From an array, the name of its stage and its slot, to the same array."""
_listener: ContextVar[Marker | None] = ContextVar("listener", default=None)
_numbers: ContextVar[list[int] | None] = ContextVar("numbers", default=None)
"""Where gradients are wanted, what numbers the marks, and the numbers of those that something is differentiated by."""


def tag(name: str, x: T) -> T:
    """Give an array a name.

    >>> def block(x, params):
    ...     x = x + tag("attn", attention(x, params))
    ...     return x + tag("mlp", mlp(x, params))

    Args:
        name: of the array; one that is used again is told apart as ``name#2``, the steps of a scan as ``name[3]``.
        x: an array, or a tree of arrays.

    Returns:
        ``x``.
    """
    import jax

    leaves, tree = jax.tree.flatten(x)
    return jax.tree.unflatten(tree, [mark(leaf, name, f">{at}") for at, leaf in enumerate(leaves)])


def mark(x: Any, name: str, slot: str) -> Any:
    """One array as one slot of a stage (:mod:`vit_parity.porting.stages`)."""
    import jax.numpy as jnp

    if (listener := _listener.get()) is not None:
        return listener(x, name, slot)
    passed = _numbers.get()
    if passed is not None:
        passed[0] += 1
    return primitive().bind(jnp.asarray(x), name=name, slot=slot, call=passed[0] if passed else 0)


@contextmanager
def heard_by(listener: Marker) -> Iterator[None]:
    """Give marks to a listener (:mod:`vit_parity.porting.listening`) instead of leaving them in the program."""
    before = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(before)


@contextmanager
def marking_gradients() -> Iterator[list[int]]:
    """While a program with a gradient is traced, mark what arrives at each mark on the way back, as slot ``g…``.

    Yields:
        Marks so far, then the numbers of the marks that depend on what is differentiated by. Such a mark without a
        gradient has the gradient 0; of any other nothing is known.
    """
    passed = [0]
    before = _numbers.set(passed)
    try:
        yield passed
    finally:
        _numbers.reset(before)


@cache
def primitive() -> Any:
    """The identity, as a primitive that a program can be searched for."""
    from jax.interpreters import ad

    tagged, tangent = _identity("vitport_tag"), _identity("vitport_tangent")

    def jvp(primals: Any, tangents: Any, **given: Any) -> Any:
        moved, passed = tangents[0], _numbers.get()
        if given["call"] and type(moved) is not ad.Zero:
            moved = tangent.bind(moved, **given)
            if passed is not None:
                passed.append(given["call"])
        return tagged.bind(*primals, **given), moved

    ad.primitive_jvps[tagged] = jvp
    ad.deflinear2(tangent, lambda arrived, _, **given: [tagged.bind(arrived, **given | {"slot": f"g{given['slot']}"})])
    return tagged


def _identity(name: str) -> Any:
    import jax.numpy as jnp
    from jax.extend.core import Primitive
    from jax.interpreters import batching, mlir

    same = Primitive(name)
    same.def_impl(lambda x, **_: x)
    same.def_abstract_eval(lambda x, **_: x)
    mlir.register_lowering(same, lambda _, x, **__: [x])

    def batched(xs: Any, axes: Any, **given: Any) -> Any:
        return same.bind(jnp.moveaxis(xs[0], axes[0], 0), **given), 0

    batching.primitive_batchers[same] = batched
    return same
