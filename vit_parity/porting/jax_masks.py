"""The random draws of JAX, recorded or replaced while a program is traced."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np

from vit_parity.porting.jax_tagging import fresh_traces
from vit_parity.porting.listening import Listener, scans_told
from vit_parity.porting.masks import Masks, Source


@contextmanager
def recording(masks: Masks) -> Iterator[None]:
    """Send what is drawn out of the programs that are traced."""
    import jax

    listener = Listener(lambda mark, array: masks.drawn.append(array))

    def recorded(own: Any) -> Any:
        return functools.wraps(own)(lambda *args, **kwargs: listener.mark(own(*args, **kwargs), "mask", ">0"))

    with ExitStack() as stack:
        for name in ("bernoulli", "uniform"):
            stack.enter_context(patch.object(jax.random, name, recorded(getattr(jax.random, name))))
        stack.enter_context(scans_told())
        stack.enter_context(fresh_traces())
        try:
            yield
        finally:
            jax.effects_barrier()


@contextmanager
def replaying(source: Source) -> Iterator[None]:
    """Put recorded masks into the programs that are traced."""
    import jax
    import jax.numpy as jnp
    from jax.core import Tracer

    loops: list[tuple[int, int, Any]] = []
    """Of the scans whose body is traced: how many steps, how many masks a step, and the step's number."""
    counting = False
    own_scan = jax.lax.scan

    def drawn(key: Any, shape: tuple[int, ...], keep: float | None) -> Any:
        at = source.next()
        if counting:
            return jnp.zeros(shape, bool if keep is not None else jnp.float32)
        places = [at + sum(step * each for step, (_, each, _) in zip(steps, loops, strict=True))
                  for steps in itertools.product(*(range(count) for count, _, _ in loops))]  # fmt: skip
        number = jnp.zeros((), jnp.int32)
        for count, _, step in loops:
            number = number * count + step
        return _drawn().bind(key, number, source=source, places=tuple(places), shape=tuple(shape), keep=keep)

    def bernoulli(key: Any, p: Any = 0.5, shape: Any = None, *_: Any, **__: Any) -> Any:
        share = 0.5 if isinstance(p, Tracer) else float(np.mean(p))
        return drawn(key, np.shape(p) if shape is None else shape, share)

    def uniform(key: Any, shape: Any = (), dtype: Any = float, minval: Any = 0.0, maxval: Any = 1.0, **_: Any) -> Any:
        found = drawn(key, shape, None).astype(dtype)
        return found * (maxval - minval) + minval

    def scan(f: Any, init: Any, xs: Any = None, length: int | None = None, reverse: bool = False, *args: Any,
             **kwargs: Any) -> Any:  # fmt: skip
        nonlocal counting
        own = f
        count, start = int(length if length is not None else len(jax.tree.leaves(xs)[0])), source.position
        before, counting = counting, True
        try:
            with fresh_traces():
                jax.eval_shape(lambda init, xs: f(init, jax.tree.map(lambda it: it[0], xs)), init, xs)
        finally:
            counting = before
        each = source.position - start

        def body(carry: Any, given: Any) -> Any:
            step, x = given
            source.position = start
            loops.append((count, each, step))
            try:
                with fresh_traces():
                    return own(carry, x)
            finally:
                loops.pop()

        if each:
            steps = jnp.arange(count, dtype=jnp.int32)
            f, xs = body, (steps[::-1] if reverse else steps, xs)
        found = own_scan(f, init, xs, count, reverse, *args, **kwargs)
        source.position = start + each * count
        return found

    with (patch.object(jax.random, "bernoulli", bernoulli), patch.object(jax.random, "uniform", uniform),
          patch.object(jax.lax, "scan", scan), fresh_traces()):  # fmt: skip
        yield


@functools.cache
def _drawn() -> Any:
    """A primitive whose batch is the mask of the whole batch: under vmap, keys are many."""
    import jax.numpy as jnp
    from jax.core import ShapedArray
    from jax.extend.core import Primitive
    from jax.interpreters import batching, mlir

    drawn = Primitive("vitport_drawn")

    def computed(key: Any, number: Any, *, source: Source, places: Any, shape: Any, keep: float | None) -> Any:
        masks = source.masks
        found = [masks.uniform(at, shape) if keep is None else masks.mask(at, shape, keep) for at in places]
        array = jnp.asarray(np.stack(found), jnp.float32 if keep is None else None)
        return array[number] if len(places) > 1 else array[0]

    def batched(given: Any, axes: Any, *, shape: Any, **rest: Any) -> Any:
        key, number = given
        return drawn.bind(key, number, shape=(key.shape[axes[0]], *shape), **rest), 0

    drawn.def_impl(computed)
    drawn.def_abstract_eval(
        lambda *_, shape, keep, **__: ShapedArray(shape, jnp.dtype("float32" if keep is None else bool))
    )
    mlir.register_lowering(drawn, mlir.lower_fun(computed, multiple_results=False))
    batching.primitive_batchers[drawn] = batched
    return drawn
