"""The value of an expression that depends on constants only."""

from __future__ import annotations

import numpy as np

from conversion.graph.elementwise import FUNCTIONS, REDUCTIONS
from conversion.graph.expression import Expression, View
from conversion.graph.graph import NotUnderstoodError


def fold(view: View) -> np.ndarray:
    """Compute a view that does not depend on the image, in the dtypes of its constants.

    Raises:
        NotUnderstoodError: if it depends on the image, or an operation in it is not understood.
    """
    arrays: dict[int, np.ndarray] = {}
    waiting = [view.expression]
    while waiting:
        at = waiting[-1]
        missing = [arg.expression for arg in at.views if arg.expression.number not in arrays]
        if at.number in arrays or not missing:
            waiting.pop()
            if at.number not in arrays:
                arrays[at.number] = _compute(at, arrays)
        else:
            waiting += missing
    return _seen(view, arrays)


def _seen(view: View, arrays: dict[int, np.ndarray]) -> np.ndarray:
    whole = arrays[view.expression.number].reshape(-1)
    return (whole if view.order is None else whole[view.order]).reshape(view.shape)


def _compute(at: Expression, arrays: dict[int, np.ndarray]) -> np.ndarray:
    args = [_seen(arg, arrays) if isinstance(arg, View) else arg for arg in at.args]
    if at.kind == "constant":
        return at.facts["array"]
    if at.kind == "linear":
        return args[0] @ at.facts["kernel"]
    if at.kind == "product":
        return args[0] @ args[1]
    if at.kind == "elementwise":
        with np.errstate(all="ignore"):
            return np.broadcast_to(FUNCTIONS[at.facts["op"]](*args, **at.facts["attributes"]), at.shape)
    if at.kind == "reduce":
        return REDUCTIONS[at.facts["op"]](args[0], axis=at.facts["axes"], keepdims=True)
    if at.kind == "select":
        return np.concatenate([arg.reshape(-1) for arg in args])[at.facts["order"]]
    if at.kind == "resize" and at.shape == at.views[0].shape:  # to its own size, which changes nothing
        return args[0]
    raise NotUnderstoodError(f"The graph's {at.place} is not constant, where a constant is expected.")
