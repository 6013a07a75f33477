"""What ``jax.export`` needs to write a function of a split model down.

It is registered when a model's class is imported, in the process that writes and in the one that reads::

    graphdef, state = nnx.split(model)
    flat = nnx.to_flat_state(state)
    exported = jax.export.export(jax.jit(lambda flat, x: nnx.merge(graphdef, flat)(x)))(flat, images)
    data = exported.serialize()  # later: jax.export.deserialize(data).call(flat, images)

``serialize`` and ``deserialize`` need the package flatbuffers: the extra ``export``.

The state is given flat because ``jax.export`` takes no dictionary whose keys are numbers, as those of blocks are.
"""

from __future__ import annotations

import contextlib
import json
from typing import Any

import jax.export
from flax import nnx

from vit_spec import VitportError


def register_states() -> None:
    """Let ``jax.export`` serialise and deserialise arguments and results of NNX: states and their parameters.

    They are pytrees whose static part is plain values: keys or paths, and the metadata of a parameter.
    """
    for kind in (nnx.State, nnx.FlatState, nnx.Param):
        with contextlib.suppress(ValueError):  # registered before, by Flax or by another package
            jax.export.register_pytree_node_serialization(
                kind,
                serialized_name=f"flax.nnx.{kind.__name__}",
                serialize_auxdata=_to_json,
                deserialize_auxdata=_from_json,
            )


def _to_json(static: Any) -> bytes:
    try:
        return json.dumps(static).encode()
    except TypeError as error:
        raise VitportError(
            f"The metadata {static!r} of a parameter cannot be serialised: export a model whose parameters carry plain "
            "values alone."
        ) from error


def _from_json(data: bytes | bytearray) -> Any:
    return _tuples(json.loads(data))


def _tuples(value: Any) -> Any:
    return tuple(_tuples(entry) for entry in value) if isinstance(value, list) else value
