"""A JAX program, evaluated equation by equation: what it tags is read, and on request replaced, widened or shaken.

An operation runs when it is met, so nothing is compiled but each operation, once for all models of this process: a
model that is run two or three times would take longer to compile than to run. Calls (jit, remat, custom derivatives)
are inlined, but what the user compiles as a whole is compiled in a plain run too. A scan stays a scan, whose tags come
out stacked. Tags in the branches of a ``cond`` and in the body of a ``while_loop`` are not seen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vit_parity.porting.loops import Loop, keys_of
from vit_parity.porting.stages import Key, unique

_CALLS = ("jit", "pjit", "closed_call", "core_call", "remat2", "remat", "checkpoint", "custom_jvp_call",
          "custom_vjp_call", "custom_vjp_call_jaxpr")  # fmt: skip
_ROUNDS = ("add", "sub", "mul", "div", "exp", "log", "tanh", "logistic", "erf", "rsqrt", "sqrt", "pow", "integer_pow",
           "dot_general", "conv_general_dilated", "reduce_sum", "cumsum", "sin", "cos")  # fmt: skip
"""Primitives whose result is rounded."""
_SCATTERS = ("scatter-add", "scatter-mul", "scatter-min", "scatter-max")


@dataclass
class Evaluation:
    """How a program is evaluated.

    Args:
        wide: float32 becomes float64, in constants and in conversions too.
        shake: move results by a random share of at most this.
    """

    wide: bool = False
    shake: float = 0.0
    shaken: int = 0
    """Results that were moved so far."""
    compiling: bool = False
    """Whether this is part of a program that is compiled as a whole."""
    again: bool = False
    """Whether this is computed a second time, for the way back (``jax.checkpoint``)."""

    def run(
        self, jaxpr: Any, consts: Sequence[Any], args: Sequence[Any], forced: Mapping[Key, Any], seen: dict[Key, int]
    ) -> tuple[list[Any], dict[Key, Any], list[Key | Loop]]:
        """Evaluate.

        Args:
            jaxpr: the program.
            consts: its constants.
            args: its arguments.
            forced: instead of what is tagged so, whether it is replaced, and by what; in a scan with the steps as
                first axis of both. Of what is missing nothing is replaced.
            seen: how often each tag was met.

        Returns:
            The results, what was tagged, and in which order.
        """
        values: dict[Any, Any] = {}
        found: dict[Key, Any] = {}
        order: list[Key | Loop] = []
        values.update(zip(jaxpr.constvars, map(self._widened, consts), strict=True))
        values.update(zip(jaxpr.invars, args, strict=True))
        uses = Counter(var for equation in jaxpr.eqns for var in equation.invars if not hasattr(var, "val"))
        uses.update(var for var in jaxpr.outvars if not hasattr(var, "val"))
        for equation in jaxpr.eqns:
            given = [self._widened(var.val) if hasattr(var, "val") else values[var] for var in equation.invars]
            for var in equation.invars:  # what is not needed any more is freed
                if not hasattr(var, "val"):
                    uses[var] -= 1
                    if not uses[var]:
                        del values[var]
            name, params = equation.primitive.name, equation.params
            given = _alike(equation, given) if self.wide else given
            if name == "vitport_tag":
                key = _key(params, seen, again=self.again)
                found[key] = given[0]
                order.append(key)
                results = [_replaced(given[0], *forced[key]) if key in forced else given[0]]
            elif name == "scan":
                results, inner, loop = self._scan(params, given, forced, seen)
                found |= inner
                if loop.order:
                    order.append(loop)
            elif name == "while":
                results = self._while(params, given)
            elif name == "cond":
                results = self._cond(params, given)
            elif name in _CALLS:
                body, inner_consts = _opened(next(params[it] for it in ("jaxpr", "call_jaxpr", "fun_jaxpr")
                                                  if it in params))  # fmt: skip
                compiled = name in ("jit", "pjit") and not (self.wide or self.shake or self.compiling)
                before, self.again = self.again, self.again or params.get("differentiated", False)
                if compiled and order_of(body, dict(seen), again=self.again):
                    results, inner, inner_order = self._compiled(body, inner_consts, given, forced, seen)
                else:
                    results, inner, inner_order = self.run(body, inner_consts, given, forced, seen)
                self.again = before
                found |= inner
                order += inner_order
            elif self.wide and name in _SCATTERS:  # whose own sum is in the program's dtype
                kept = {it: params[it] for it in ("dimension_numbers", "indices_are_sorted", "unique_indices", "mode")}
                results = [_scatter(name)(*given, **kept)]
            else:
                results = equation.primitive.bind(
                    *given, **{it: self._wide_dtype(value) for it, value in params.items()}
                )
                results = list(results) if equation.primitive.multiple_results else [results]
                if self.shake and name in _ROUNDS:
                    results = [self._shaken(result) for result in results]
            values |= {var: result for var, result in zip(equation.outvars, results, strict=True) if uses[var]}
        outputs = [self._widened(var.val) if hasattr(var, "val") else values[var] for var in jaxpr.outvars]
        return outputs, found, order

    def _compiled(
        self, body: Any, consts: Sequence[Any], given: list[Any], forced: Mapping[Key, Any], seen: dict[Key, int]
    ) -> tuple[list[Any], dict[Key, Any], list[Key | Loop]]:
        """What the user compiles, and has modules or tags in it."""
        import jax

        order: list[Key | Loop] = []
        before = dict(seen)
        inner = Evaluation(compiling=True, again=self.again)

        def call(given: list[Any], forced: Mapping[Key, Any]) -> tuple[list[Any], dict[Key, Any]]:
            nonlocal order
            seen.clear()
            seen.update(before)
            results, found, order = inner.run(body, consts, given, forced, seen)
            return results, found

        inside = {key: forced[key] for key in keys_of(order_of(body, dict(seen), again=self.again)) if key in forced}
        return *jax.jit(call)(given, inside), order

    def _scan(
        self, params: Any, given: list[Any], forced: Mapping[Key, Any], seen: dict[Key, int]
    ) -> tuple[list[Any], dict[Key, Any], Loop]:
        import jax

        body, inner_consts = _opened(params["jaxpr"])
        consts, carries = _counts(params)
        closed, carry, xs = given[:consts], given[consts : consts + carries], given[consts + carries :]
        inside = {key: forced[key] for key in keys_of(order_of(body, dict(seen), again=self.again)) if key in forced}
        order: list[Key | Loop] = []
        before = dict(seen)

        def step(carry: list[Any], x: tuple[list[Any], dict[Key, Any]]) -> tuple[list[Any], Any]:
            nonlocal order
            seen.clear()  # the body may be traced more than once
            seen.update(before)
            outputs, found, order = self.run(body, inner_consts, [*closed, *carry, *x[0]], x[1], seen)
            kept = [value.astype(old.dtype) for value, old in zip(outputs, carry, strict=False)]
            return kept, (outputs[carries:], found)

        last, (ys, found) = jax.lax.scan(step, carry, (xs, inside), params["length"], params["reverse"])
        return [*last, *ys], found, Loop(params["length"], order)

    def _while(self, params: Any, given: list[Any]) -> list[Any]:
        import jax

        of_cond, of_body = params["cond_nconsts"], params["body_nconsts"]
        test, test_consts = _opened(params["cond_jaxpr"])
        body, body_consts = _opened(params["body_jaxpr"])
        first, second, start = given[:of_cond], given[of_cond : of_cond + of_body], given[of_cond + of_body :]
        return jax.lax.while_loop(
            lambda carry: self.run(test, test_consts, [*first, *carry], {}, {})[0][0],
            lambda carry: self.run(body, body_consts, [*second, *carry], {}, {})[0],
            start,
        )

    def _cond(self, params: Any, given: list[Any]) -> list[Any]:
        import jax

        def branch(closed: Any) -> Any:
            body, consts = _opened(closed)
            return lambda *args: self.run(body, consts, args, {}, {})[0]

        index, *rest = given
        return jax.lax.switch(index.astype("int32"), [branch(closed) for closed in params["branches"]], *rest)

    def _widened(self, value: Any) -> Any:
        wide = self.wide and getattr(value, "dtype", None) == np.float32
        if not wide:
            return value
        return value.astype(np.float64) if hasattr(value, "astype") else np.float64(value)  # JAX's TypedFloat has none

    def _wide_dtype(self, value: Any) -> Any:
        wide = self.wide and (isinstance(value, np.dtype) or value is np.float32) and value == np.float32
        return np.dtype(np.float64) if wide else value

    def _shaken(self, x: Any) -> Any:
        """``x`` times 1 plus noise from a cheap hash of the elements' numbers: uniform, and equal in every run."""
        return shaken(x, self.shake, self._next())

    def _next(self) -> int:
        self.shaken += 1
        return self.shaken


def shaken(x: Any, by: float, number: int) -> Any:
    """Floating-point numbers moved by a random share of at most ``by``; the noise of each number differs."""
    import jax.numpy as jnp

    if not jnp.issubdtype(x.dtype, jnp.floating):
        return x
    places = jnp.arange(x.size, dtype=x.dtype).reshape(x.shape)
    noise = jnp.sin((places % 9973 + 1) * 12.9898 + (places // 9973 + 1) * 4.1414 + number * 78.233) * 43758.5453
    return x * (1 + by * (2 * (noise - jnp.floor(noise)) - 1)).astype(x.dtype)


def order_of(jaxpr: Any, seen: dict[Key, int], *, again: bool = False) -> list[Key | Loop]:
    """What a program tags, without running it."""
    order: list[Key | Loop] = []
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        if name == "vitport_tag":
            order.append(_key(params, seen, again=again))
        elif name == "scan":
            inner = order_of(_opened(params["jaxpr"])[0], seen, again=again)
            order += [Loop(params["length"], inner)] if inner else []
        elif name in _CALLS:
            body = next(params[it] for it in ("jaxpr", "call_jaxpr", "fun_jaxpr") if it in params)
            order += order_of(_opened(body)[0], seen, again=again or params.get("differentiated", False))
    return order


def _key(params: Mapping[str, Any], seen: dict[Key, int], *, again: bool) -> Key:
    """Of a tag; in a program with a gradient (:mod:`vit_parity.porting.jax_backward`) by its number and use."""
    if not params["call"]:
        return unique(params["name"], params["slot"], seen)
    slot = params["slot"]
    slot = f"{'' if slot[0] == 'g' or not again else 'r'}{slot}@{params['call']}"
    count = seen[params["name"], slot] = seen.get((params["name"], slot), 0) + 1
    return params["name"], f"{slot}@{count}"


def _counts(params: Mapping[str, Any]) -> tuple[int, int]:
    """How many constants and carried arrays a scan is given; from jax 0.11 on it holds them as trees."""
    if "num_consts" in params:
        return params["num_consts"], params["num_carry"]
    consts, carry, _ = params["ft_in"].unpack()
    return len(list(consts)), len(list(carry))


def _scatter(name: str) -> Any:
    import jax

    return getattr(jax.lax, name.replace("-", "_"))


def _replaced(own: Any, whether: Any, by: Any) -> Any:
    import jax.numpy as jnp

    return jnp.where(whether, by, own.astype(by.dtype))


def _alike(equation: Any, given: list[Any]) -> list[Any]:
    """Operands of one dtype, where the program has one: a replaced value may be finer than what stood there."""
    import jax.numpy as jnp

    places = [at for at, value in enumerate(given) if jnp.issubdtype(value.dtype, jnp.floating)]
    now, planned = ({_dtype(of[at]) for at in places} for of in (given, equation.invars))
    if len(now) < 2 or len(planned) > 1:
        return given
    finest = max(now, key=lambda dtype: dtype.itemsize)
    return [jnp.asarray(value, finest) if at in places else value for at, value in enumerate(given)]


def _dtype(value: Any) -> np.dtype:
    return np.dtype(getattr(value, "aval", value).dtype)


def _opened(jaxpr: Any) -> tuple[Any, Sequence[Any]]:
    """A program and its constants."""
    return (jaxpr.jaxpr, jaxpr.consts) if hasattr(jaxpr, "consts") else (jaxpr, ())
