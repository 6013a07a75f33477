"""What a registered name stands for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vit_spec.preprocessing import Preprocessing

if TYPE_CHECKING:
    from vit_spec.family import Config


@dataclass(frozen=True)
class Model:
    """A named model and the preprocessing of the weights that are usually loaded under its name."""

    name: str
    config: Config
    preprocessing: Preprocessing
