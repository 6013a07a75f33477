"""What each module is given and returns, tagged while a JAX program is traced.

Linen's and Haiku's calls are tagged by their own interceptors, NNX's by a wrapper round the ``__call__`` of the classes
in question.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from vit_parity.porting.stages import ROOT
from vit_parity.porting.tags import mark

PATH = "_vitport_path"
"""The attribute of an NNX module, in a copy of the model, that holds its path."""


@contextmanager
def tagging(kinds: dict[str, str]) -> Iterator[None]:
    """While a program is traced, tag what modules are given and what they return."""
    with ExitStack() as stack:
        stack.enter_context(_context()(next(_number)))
        if "flax.linen" in sys.modules:
            from flax import linen

            def linen_call(run: Any, args: Any, kwargs: Any, context: Any) -> Any:
                if context.method_name != "__call__":
                    return run(*args, **kwargs)
                name = ".".join(context.module.path) or ROOT
                return _tagged_call(run, args, kwargs, name, type(context.module).__name__, kinds)

            stack.enter_context(linen.intercept_methods(linen_call))
        if "haiku" in sys.modules:
            import haiku  # pyright: ignore[reportMissingImports]

            def haiku_call(run: Any, args: Any, kwargs: Any, context: Any) -> Any:
                if context.method_name != "__call__":
                    return run(*args, **kwargs)
                name = context.module.module_name.replace("/~/", ".").replace("/", ".")
                return _tagged_call(run, args, kwargs, name, type(context.module).__name__, kinds)

            stack.enter_context(haiku.intercept_methods(haiku_call))
        if "flax.nnx" in sys.modules:
            stack.enter_context(_nnx_calls(kinds))
        yield


@contextmanager
def _nnx_calls(kinds: dict[str, str]) -> Iterator[None]:
    """Wraps the ``__call__`` of every class of NNX modules; only modules with a path are tagged."""
    from flax import nnx

    inside: list[int] = []

    def wrapped(own: Any) -> Any:
        @functools.wraps(own)
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            name = getattr(self, PATH, None)
            if name is None or (inside and inside[-1] == id(self)):  # the class above is called by super()
                return own(self, *args, **kwargs)
            inside.append(id(self))
            try:
                return _tagged_call(functools.partial(own, self), args, kwargs, name, type(self).__name__, kinds)
            finally:
                inside.pop()

        return call

    before = {cls: vars(cls)["__call__"] for cls in _subclasses(nnx.Module) if "__call__" in vars(cls)}
    try:
        for cls, own in before.items():
            cls.__call__ = wrapped(own)
        yield
    finally:
        for cls, own in before.items():
            cls.__call__ = own


def _tagged_call(run: Any, args: Any, kwargs: Any, name: str, kind: str, kinds: dict[str, str]) -> Any:
    """Call a module with its arrays tagged; an object that stands twice among the arguments is one slot."""
    import jax

    kinds[name] = kind
    leaves, tree = jax.tree.flatten((args, kwargs), is_leaf=is_leaf)
    marked: dict[int, Any] = {}
    for leaf in leaves:
        if is_array(leaf) and id(leaf) not in marked:
            marked[id(leaf)] = mark(leaf, name, f"<{len(marked)}")
    args, kwargs = jax.tree.unflatten(tree, [marked.get(id(leaf), leaf) for leaf in leaves])
    output, tree = jax.tree.flatten(run(*args, **kwargs), is_leaf=is_leaf)
    count = 0
    for at, leaf in enumerate(output):
        if is_array(leaf):
            output[at] = mark(leaf, name, f">{count}")
            count += 1
    return jax.tree.unflatten(tree, output)


def is_leaf(value: Any) -> bool:
    """Only plain containers are opened: a module among the arguments stays what it is."""
    return not isinstance(value, (dict, list, tuple))


def is_array(leaf: Any) -> bool:
    import jax

    return isinstance(leaf, (jax.Array, np.ndarray)) and not jax.numpy.issubdtype(leaf.dtype, jax.dtypes.extended)


@functools.cache
def _context() -> Any:
    """Part of the key of JAX's caches, so that nothing traced without tags is found again."""
    import jax

    return jax.make_user_context(0)


_number = iter(range(1, sys.maxsize))


def _subclasses(cls: type) -> set[type]:
    return {cls}.union(*map(_subclasses, cls.__subclasses__()))
