"""Arrays brought out of a JAX program while it runs, so that a training loop compiled by its owner can be watched.

While a :class:`Listener` listens, :func:`vit_parity.porting.tags.mark` puts a primitive into the program that is
traced: the identity, which sends a copy to Python when it runs. It passes through jit, scan, remat, grad and vmap,
where the whole batch is sent, its batch axis first. On one device arrays come in the order of computation. What was
compiled before is traced anew, and used again afterwards, because the listener is part of the key of JAX's caches.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np

from vit_parity.porting.jax_tagging import fresh_traces
from vit_parity.porting.tags import heard_by

_lengths: ContextVar[tuple[int, ...]] = ContextVar("lengths", default=())
"""Of the scans whose body is traced, the outermost first."""


@dataclass(frozen=True)
class Mark:
    """A place in a program."""

    number: int
    """In the order of tracing."""
    name: str
    slot: str
    """Of the stage; ``g>0`` is the gradient that arrives at ``>0``."""
    lengths: tuple[int, ...]
    """Of the scans that it is in."""


Wanted = Callable[[str, str], bool]
Arrived = Callable[[Mark, np.ndarray], None]


class Listener:
    """Hears the marks of programs that are traced in :meth:`listening`.

    Args:
        arrived: is given each array, every time that it is computed.
        wanted: from the name of a stage and its slot: whether it is sent at all.
        gradients: also send what arrives at outputs on the way back.
    """

    def __init__(self, arrived: Arrived, wanted: Wanted = lambda *_: True, *, gradients: bool = False) -> None:
        self._arrived, self._wanted, self._gradients = arrived, wanted, gradients
        self._number = 0
        self.reached: set[int] = set()
        """Numbers of the marks that depend on what is differentiated by."""

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Until this ends."""
        import jax

        with scans_told(), fresh_traces(), heard_by(self.mark):
            try:
                yield
            finally:
                jax.effects_barrier()

    def mark(self, x: Any, name: str, slot: str) -> Any:
        """One array as one slot of a stage."""
        import jax.numpy as jnp

        self._number += 1
        if not self._wanted(name, slot):
            return x
        back = self._gradients and slot[0] == ">"
        return _seen().bind(jnp.asarray(x), listener=self, at=Mark(self._number, name, slot, _lengths.get()), back=back)

    def heard(self, x: Any, *, at: Mark) -> None:
        """An array that a program sends."""
        self._arrived(at, np.array(x))


@contextmanager
def scans_told() -> Iterator[None]:
    """Tell marks which scans they are in. A body is traced apart from what else calls its functions."""
    import jax

    own = jax.lax.scan

    @functools.wraps(own)
    def scan(f: Any, init: Any, xs: Any = None, length: int | None = None, *args: Any, **kwargs: Any) -> Any:
        count = length if length is not None else len(jax.tree.leaves(xs)[0])

        def body(carry: Any, x: Any) -> Any:
            before = _lengths.set((*_lengths.get(), int(count)))
            try:
                with fresh_traces():
                    return f(carry, x)
            finally:
                _lengths.reset(before)

        return own(body, init, xs, length, *args, **kwargs)

    jax.lax.scan = scan
    try:
        yield
    finally:
        jax.lax.scan = own


@functools.cache
def _seen() -> Any:
    """The primitive; its derivative marks what arrives on the way back."""
    import jax
    import jax.numpy as jnp
    from jax.extend.core import Primitive
    from jax.interpreters import ad, batching, mlir

    seen, passed = Primitive("vitport_seen"), Primitive("vitport_passed")
    ordered = len(jax.devices()) == 1  # JAX orders nothing on several
    effects = jax.make_jaxpr(lambda x: jax.debug.callback(print, x, ordered=ordered))(0.0).jaxpr.effects

    def sent(x: Any, *, listener: Listener, at: Mark, back: bool) -> Any:
        jax.debug.callback(functools.partial(listener.heard, at=at), x, ordered=ordered)
        return x

    def computed(x: Any, *, listener: Listener, at: Mark, back: bool) -> Any:
        listener.heard(x, at=at)
        return x

    seen.def_impl(computed)
    seen.def_effectful_abstract_eval(lambda x, **_: (x, effects))
    mlir.register_lowering(seen, mlir.lower_fun(sent, multiple_results=False))
    passed.def_impl(lambda x, **_: x)
    passed.def_abstract_eval(lambda x, **_: x)
    mlir.register_lowering(passed, lambda _, x, **__: [x])

    def jvp(primals: Any, tangents: Any, *, back: bool, **given: Any) -> Any:
        moved = tangents[0]
        if back and type(moved) is not ad.Zero:
            moved = passed.bind(moved, **given)
            given["listener"].reached.add(given["at"].number)
        return seen.bind(*primals, back=back, **given), moved

    def arrives(gradient: Any, _: Any, *, listener: Listener, at: Mark) -> Any:
        told = Mark(at.number, at.name, f"g{at.slot}", at.lengths)
        return [seen.bind(gradient, listener=listener, at=told, back=False)]

    ad.primitive_jvps[seen] = jvp
    ad.deflinear2(passed, arrives)
    for primitive in (seen, passed):

        def batched(xs: Any, axes: Any, primitive: Any = primitive, **given: Any) -> Any:
            return primitive.bind(jnp.moveaxis(xs[0], axes[0], 0), **given), 0

        batching.primitive_batchers[primitive] = batched
    return seen
