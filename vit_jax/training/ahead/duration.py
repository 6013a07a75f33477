"""About how long a compiler takes, to be told before it begins."""

from __future__ import annotations

from vit_jax.training.ahead.topology import Topology
from vit_spec import Config, count_blocks, segments

_ALWAYS = {"tpu": 15.0, "gpu": 10.0}
"""Seconds of two cores for all but blocks."""
_SCANNED = {"tpu": 20.0, "gpu": 8.0}
_UNROLLED = {"tpu": 50.0, "gpu": 1.5}
"""The same for each block that is compiled, within a scan and outside. All measured, to a factor of two."""


def seconds(model: Config, topology: Topology, *, scan: bool) -> float:
    """Of a training step's compilation on two free cores, roughly.

    Args:
        model: that is trained.
        topology: the chips.
        scan: whether equal blocks are compiled once.
    """
    general = "gpu" if topology.chip.cudnn else "tpu"
    if scan:
        return _ALWAYS[general] + _SCANNED[general] * sum(segment.period for segment in segments(model))
    return _ALWAYS[general] + _UNROLLED[general] * count_blocks(model)


def words(model: Config, topology: Topology, *, scan: bool) -> str:
    """The same for people, with what ``--scan`` would save where that is minutes."""
    own, other = seconds(model, topology, scan=scan), seconds(model, topology, scan=True)
    saved = f", {_about(other)} with --scan" if own - other > 60 else ""
    return f"{_about(own)} on two free cores{saved}"


def _about(time: float) -> str:
    return f"about {max(1, round(time / 60))} min"
