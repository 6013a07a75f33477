"""``tag("name", x)``: an array in a JAX function that :func:`vit_parity.porting.capture` sees.

A tag is the identity. It compiles to nothing, and passes through jit, scan, vmap, remat and grad. Under vmap the tagged
array is the whole batch, its batch axis first.
"""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")


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

    return primitive().bind(jnp.asarray(x), name=name, slot=slot)


@cache
def primitive() -> Any:
    """The identity, as a primitive that a program can be searched for."""
    import jax.numpy as jnp
    from jax.extend.core import Primitive
    from jax.interpreters import ad, batching, mlir

    tagged = Primitive("vitport_tag")
    tagged.def_impl(lambda x, **_: x)
    tagged.def_abstract_eval(lambda x, **_: x)
    mlir.register_lowering(tagged, lambda _, x, **__: [x])
    ad.primitive_jvps[tagged] = lambda primals, tangents, **given: (tagged.bind(*primals, **given), tangents[0])

    def batched(xs: Any, axes: Any, **given: Any) -> Any:
        return tagged.bind(jnp.moveaxis(xs[0], axes[0], 0), **given), 0

    batching.primitive_batchers[tagged] = batched
    return tagged
