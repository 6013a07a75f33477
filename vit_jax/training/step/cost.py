"""Operations of a training step, of which frozen parameters leave some out."""

from __future__ import annotations

import math
from collections.abc import Iterator

from vit_jax.training.step.optimizer import frozen_paths
from vit_spec import Config, Parameter, Stage, block_sizes, forward_flops, parameters, segments


def step_flops(model: Config, batch: int, frozen: tuple[str, ...] = ()) -> float:
    """Floating-point operations of a step's matrix products.

    The backward pass has twice those of the forward pass, by convention also for the first layer, whose input needs no
    gradient. Where parameters are frozen it ends at the first layer that is trained, and a frozen kernel has no
    gradient.

    Args:
        frozen: see :attr:`vit_jax.training.recipe.recipe.Optimizer.frozen`.
    """
    forward = float(forward_flops(model))
    if not frozen:
        return 3 * forward * batch
    still = frozen_paths(frozen, model)
    backward = 0.0
    reached = False  # whether anything before the product is trained, so that its input needs a gradient
    for parameter, cost in _products(model, forward):
        if parameter is None:  # of two activations
            backward += 2 * cost * reached
            continue
        trains = not still[parameter.path]
        needs_input = reached or (trains and parameter.stage is Stage.EMBED)
        backward += cost * (trains + needs_input)
        reached = reached or trains
    return (forward + backward) * batch


def _products(model: Config, forward: float) -> Iterator[tuple[Parameter | None, float]]:
    """Every parameter in the order of the forward pass, with the operations of its product, if it has one; and
    ``None``, with those of attention, before the layer that takes its result.

    What no parameter's shape tells (the tokens of a pooling layer, the padding of windows) is shared out to the layers
    of the last stage with kernels before the classifier.
    """
    known = list(parameters(model))
    sizes = dict(zip(segments(model), block_sizes(model), strict=True))
    costs = {it.name: 2.0 * it.size * _rows(model, known, at) for at, it in enumerate(known)}
    attention = {it: 4.0 * own.tokens * own.keys * own.width for it, own in sizes.items()}
    counted = sum(costs.values()) + sum(cost * it.count for it, cost in attention.items())
    pool = [it for it in known if it.is_kernel and it.stage is Stage.POOL]
    total = sum(it.size for it in pool) or counted
    for it in pool:
        costs[it.name] = (forward - counted) * it.size / total
    scale = 1.0 if pool else forward / counted
    done = set[str]()
    for it in known:
        if it.segment is not None and it.block not in done and it.split == "rows" and it.is_kernel:
            done.add(str(it.block))
            yield None, attention[it.segment] * scale
        yield it, costs[it.name] * scale


def _rows(model: Config, known: list[Parameter], at: int) -> int:
    """To how many tokens of an image a parameter is applied as a product; 0 where it is none, or nobody knows."""
    it = known[at]
    sizes = dict(zip(segments(model), block_sizes(model), strict=True))
    if not it.is_kernel or it.stage is Stage.POOL or (it.exempt and it.stage is Stage.BLOCK):
        return 0
    if it.stage is Stage.EMBED:
        return math.prod(side // model.patch_size for side in model.image_size)
    if it.stage is Stage.CLASSIFIER:
        return 1
    segment = next(own.segment for own in known[at:] if own.segment is not None)  # merging leads to the next
    return sizes[segment].tokens
