"""Programs of functions that will not be traced in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vit_parity.frameworks import jax_dtype
from vit_parity.porting.jax_tagging import is_array
from vit_parity.porting.stages import is_float


def program_of(call: Callable[..., Any], arrays: list[Any]) -> tuple[Any, list[Any]]:
    """The program of a function and its arguments.

    A scan demands that its carry keeps its dtype, and layers of NNX hold on to the dtype that they were made with, so a
    scanned model may not run in float64. It is traced in float32 then, and widened as it is evaluated.
    """
    import jax

    try:
        return jax.make_jaxpr(call)(*arrays), arrays
    except TypeError:
        narrow = [_narrow(leaf) for leaf in arrays]
        if not any(floats(wide) and wide is not leaf for wide, leaf in zip(arrays, narrow, strict=True)):
            raise
        with jax_dtype("float32"):
            program = jax.make_jaxpr(call)(*narrow)
        return program, [wide if floats(wide) else leaf for wide, leaf in zip(arrays, narrow, strict=True)]


def inlined(jaxpr: Any, consts: Sequence[Any], args: Sequence[Any]) -> list[Any]:
    """Evaluate a program with what it compiles written out, so that the constants of that are the program's own."""
    values: dict[Any, Any] = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))
    for equation in jaxpr.eqns:
        given = [var.val if hasattr(var, "val") else values[var] for var in equation.invars]
        if equation.primitive.name in ("jit", "pjit"):
            body = equation.params["jaxpr"]
            results = inlined(body.jaxpr, body.consts, given)
        else:
            found = equation.primitive.get_bind_params(equation.params)
            functions, params = found if isinstance(found, tuple) else ((), found)  # before jax 0.10 there were two
            results = equation.primitive.bind(*functions, *given, **params)
            results = results if equation.primitive.multiple_results else [results]
        values.update(zip(equation.outvars, results, strict=True))
    return [var.val if hasattr(var, "val") else values[var] for var in jaxpr.outvars]


def _narrow(leaf: Any) -> Any:
    """As it is without JAX's 64-bit mode."""
    kept = {"float64": "float32", "int64": "int32", "uint64": "uint32"}.get(str(getattr(leaf, "dtype", "")))
    return leaf if kept is None else np.asarray(leaf, kept)


def floats(leaf: Any) -> bool:
    """Whether a leaf is an array of floating-point numbers."""
    return is_array(leaf) and is_float(leaf)
