"""The stand-in for hidden patches of masked pre-training: in many files, in no forward pass."""

from __future__ import annotations

import numpy as np

from conversion.tensors.table import TensorTable
from vit_spec import ViTConfig

UNREAD = "a stand-in for hidden patches in masked pre-training, in no forward pass"
"""Why it is set aside."""


def blank(table: TensorTable, config: ViTConfig) -> np.ndarray:
    """What is written for classes that have one: zeros (1, D) in the dtype of the class token."""
    return np.zeros((1, config.embed_dim), table.spec("cls_token")[1])
