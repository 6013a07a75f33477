"""What each module is given and returns, tagged while a JAX program is traced.

Linen's and Haiku's calls are tagged by their own interceptors, NNX's and Equinox's by a wrapper round the ``__call__``
of the classes in question.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import numpy as np

from vit_parity.porting.stages import ROOT
from vit_parity.porting.tags import mark

PATH = "_vitport_path"
"""The attribute of an NNX module, in a copy of the model, that holds its path."""


Named = Callable[[Any, list[tuple[Any, str]]], str | None]
"""From a module, and the modules whose calls it is in with their paths, to its own path, or ``None``: not tagged."""


@contextmanager
def tagging(kinds: dict[str, str], model: Any, called: dict[str, Any]) -> Iterator[None]:
    """While a program is traced, tag what modules are given and what they return.

    Args:
        kinds: gets the class of each module that is called, by its path.
        model: what is traced.
        called: gets the modules of Equinox that are called, by their paths.
    """
    with ExitStack() as stack:
        stack.enter_context(fresh_traces())
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
            from flax import nnx

            def path(module: Any, above: list[tuple[Any, str]]) -> str | None:
                if (known := getattr(module, PATH, None)) is not None:
                    return known
                if above or not isinstance(model, nnx.Module) or type(module) is not type(model):
                    return None
                marked.enter_context(paths_of(module))  # a copy that was taken apart before its paths were known
                return ROOT

            marked = ExitStack()
            stack.enter_context(_calls(nnx.Module, path, kinds, marked.close))
        if "keras" in sys.modules:
            layer = sys.modules["keras"].layers.Layer
            within = isinstance(model, layer)  # whose own call a stateless one leaves out
            path_in = functools.partial(_keras_path, within=within)
            stack.enter_context(_calls(layer, path_in, kinds, kind=_keras_kind))
        if "equinox" in sys.modules:
            from vit_parity.porting.equinox_model import equinox_module, path_of

            whole = equinox_module(model)

            def named(module: Any, above: list[tuple[Any, str]]) -> str | None:
                if (path := path_of(whole, module, above)) is not None:
                    called.setdefault(path, module)
                return path

            stack.enter_context(_calls(sys.modules["equinox"].Module, named, kinds))
        yield


@contextmanager
def paths_of(model: Any) -> Iterator[None]:
    """Let each module of an NNX model, and of what is copied from it, hold its path."""
    from flax import nnx

    modules = list(nnx.iter_modules(model))
    try:
        for path, module in modules:
            setattr(module, PATH, ".".join(map(str, path)) or ROOT)
        yield
    finally:
        for _, module in modules:
            if hasattr(module, PATH):
                delattr(module, PATH)


@contextmanager
def _calls(
    base: type, named: Named, kinds: dict[str, str], left: Callable[[], Any] = tuple,
    kind: Callable[[Any], str] = lambda module: type(module).__name__
) -> Iterator[None]:  # fmt: skip
    """Wraps the ``__call__`` of every class of modules; ``left`` is called behind the outermost."""
    inside: list[tuple[Any, str]] = []

    def wrapped(own: Any) -> Any:
        @functools.wraps(own)
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            called_by_super = bool(inside) and inside[-1][0] is self
            name = None if called_by_super else named(self, inside)
            if name is None:
                return own(self, *args, **kwargs)
            inside.append((self, name))
            try:
                return _tagged_call(functools.partial(own, self), args, kwargs, name, kind(self), kinds)
            finally:
                inside.pop()
                if not inside:
                    left()

        return call

    before = {cls: vars(cls)["__call__"] for cls in _subclasses(base) if "__call__" in vars(cls)}
    try:
        for cls, own in before.items():
            cls.__call__ = wrapped(own)
        yield
    finally:
        for cls, own in before.items():
            cls.__call__ = own


def _keras_path(layer: Any, above: list[tuple[Any, str]], *, within: bool) -> str:
    """The path of a layer of Keras, which begins with the model's name."""
    return ".".join(layer.path.split("/")[1:]) or layer.name if above or within else ROOT


def _keras_kind(layer: Any) -> str:
    """Its class; a layer with an activation in it returns something else than a linear one."""
    last = getattr(getattr(layer, "activation", None), "__name__", "linear")
    return type(layer).__name__ + ("" if last == "linear" else f" with {last}")


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


def named_leaf(path: Sequence[Any]) -> str:
    """A path in a tree as ``layers.0.kernel``."""
    return ".".join(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path)


def fresh_traces() -> AbstractContextManager[None]:
    """Within it, nothing is found again that was traced outside."""
    return _context()(next(_number))


@functools.cache
def _context() -> Any:
    """Part of the key of JAX's caches."""
    import jax

    return jax.make_user_context(0)


_number = iter(range(1, sys.maxsize))


def _subclasses(cls: type) -> set[type]:
    return {cls}.union(*map(_subclasses, cls.__subclasses__()))
