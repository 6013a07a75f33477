"""What a file of a Swin Transformer means by its own names."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from conversion.second_reading.swin import SwinReading
from conversion.source import Source
from conversion.tensors.table import TensorTable
from vit_parity.semantics.readers import JaxReader, TorchReader
from vit_parity.semantics.swin.facts import swin_facts
from vit_parity.semantics.swin.model import SwinSemantics
from vit_spec import SwinConfig, config_from_dict


def meaning(
    source: Source,
    table: TensorTable,
    reading: SwinReading,
    config: SwinConfig,
    *,
    dtype: np.dtype | None,
    activation: str | None,
    head: bool,
) -> SwinSemantics:
    """See :func:`vit_parity.semantics.semantics_of_file`.

    Args:
        source: the file.
        table: its tensors and buffers under the format's bare names.
        reading: of its format.
        config: for what the file does not say.
        dtype: rounds every array to this type first; ``None`` leaves them as they are.
        activation: replaces the file's own; ``None`` keeps it.
        head: ``False`` leaves out the file's head.
    """
    if source.own is not None and isinstance(own := config_from_dict(source.own["config"]), SwinConfig):
        config = own  # the file's own words, not what a reader made of them
    reader = (JaxReader if reading.axes == "jax" else TorchReader)(table, dtype)
    facts = swin_facts(reading, reader, config, source.config_json or {}, recorded=source.own is not None)
    names = reading.names if head else replace(reading.names, head=())
    return SwinSemantics(reader, names, facts if activation is None else replace(facts, activation=activation))
