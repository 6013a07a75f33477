"""What the values of new parameters are drawn from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Normal:
    """Normal distribution around 0.

    Reference code truncates it at 100 standard deviations or more, which never matters.
    """

    std: float


@dataclass(frozen=True)
class Uniform:
    """Uniform distribution between ``-bound`` and ``bound``."""

    bound: float


@dataclass(frozen=True)
class Constant:
    """One value for all."""

    value: float


Distribution = Normal | Uniform | Constant
