"""Why one optimizer parts from another: what is changed in the rule of the one that is known, until it is the other."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from vit_parity.porting.optimizer_rules import hypotheses, replayed
from vit_parity.porting.optimizer_runs import CONSTANTS, Ran, Trees, measured, near

_SAMPLE = 512
"""Elements of each parameter that causes are replayed on."""


def found_causes(known: Ran, other: Ran, raw: Trees) -> tuple[str, ...]:
    """What brings the replay of a known rule to the other's steps."""
    assert known.rules is not None
    rules = known.rules
    picked = {name: np.random.default_rng(0).permutation(it.size)[:_SAMPLE] for name, it in known.params[0].items()}

    def thin(trees: Trees) -> list[dict[str, np.ndarray]]:
        return [{name: tree[name].ravel()[at] for name, at in picked.items() if name in tree} for tree in trees]

    start, target = thin(known.params), thin(other.params)
    largest = max(rule.decay for rule in rules.values())
    options = {name: hypotheses(rule, largest, known.params[0][name].ndim > 1) for name, rule in rules.items()}
    factor = _factor(start, target)
    scale = {f"uses {factor:g} times the learning rate": lambda it: dataclasses.replace(
        it, rates=tuple(rate * factor for rate in it.rates))}  # fmt: skip
    options = {name: scale | own for name, own in options.items()}
    taken = {"": thin(known.given)} | {told: thin(trees) for told, trees in _clipped(known.given, raw).items()}
    order = sorted(picked, key=lambda name: all(near(start, target, name)))  # those that are apart first

    def fits(words: Sequence[str], given: Trees, coarse: int) -> bool:
        for name in order:
            rule = rules[name]
            for word in words:
                rule = options[name].get(word, lambda it: it)(rule)
            own = [tree.get(name, np.zeros_like(start[0][name])) for tree in given]
            so_far = [start[0]]
            for at, p in enumerate(replayed(rule, start[0][name], own), 1):
                so_far.append({name: p})
                far, limit, _ = measured(target, so_far, name, at, coarse)
                if not far <= limit:
                    return False
        return True

    seen = [list(rules.values())]
    words: list[str] = []  # what changes anything, and each change once
    for word in dict.fromkeys(word for own in options.values() for word in own):
        changed = [options[name].get(word, lambda it: it)(rule) for name, rule in rules.items()]
        if changed not in seen:
            seen.append(changed)
            words.append(word)
    for coarse in (0, CONSTANTS):
        found = [word for word in words if fits((word,), taken[""], coarse)]
        found += [told for told in taken if told and fits((), taken[told], coarse)]
        if found:
            return tuple(found)
    pairs = [(told, word) for told in taken if told for word in words if fits((word,), taken[told], CONSTANTS)]
    pairs += [pair for pair in itertools.combinations(words, 2) if fits(pair, taken[""], CONSTANTS)]
    return tuple(" and ".join(pair) for pair in pairs[:4])


def _factor(start: Trees, target: Trees) -> float:
    """How much longer the other one's first step is."""
    moves = [np.concatenate([trees[1][name] - trees[0][name] for name in start[0]]) for trees in (start, target)]
    size = float(moves[0] @ moves[0])
    return float(f"{float(moves[1] @ moves[0]) / size:.6g}") if size else 1.0


def _clipped(given: Trees, raw: Trees) -> dict[str, list[dict[str, np.ndarray]]]:
    """The gradients as other ways of clipping would leave them, if the known one clips."""
    norms = [[_whole_norm(tree) for tree in trees] for trees in (given, raw)]
    cut = [at for at in range(len(raw)) if norms[0][at] < norms[1][at] * (1 - 1e-9)]
    if not cut:
        return {}
    limit = float(f"{max(norms[0][at] for at in cut):.5g}")
    values = float(f"{max(float(np.abs(it).max()) for at in cut for it in given[at].values()):.6g}")
    each: dict[str, Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]] = {
        "does not clip gradients": dict,
        "clips by the whole norm without PyTorch's 1e-6 in the divisor": lambda tree: _by_norm(tree, limit),
        "clips each parameter's gradient by its own norm": lambda tree: {
            name: _by_norm({name: it}, limit)[name] for name, it in tree.items()
        },
        f"clips gradients by value, at {limit:g}": lambda tree: {
            name: it.clip(-limit, limit) for name, it in tree.items()
        },
        f"clips gradients by the whole norm, at {values:g}": lambda tree: _by_norm(tree, values),
    }
    return {told: [change(tree) for tree in raw] for told, change in each.items()}


def _whole_norm(tree: Mapping[str, np.ndarray]) -> float:
    return float(np.sqrt(sum(float((it**2).sum()) for it in tree.values())))


def _by_norm(tree: Mapping[str, np.ndarray], limit: float) -> dict[str, np.ndarray]:
    by = min(1.0, limit / max(_whole_norm(tree), 1e-300))
    return {name: it * by for name, it in tree.items()}
