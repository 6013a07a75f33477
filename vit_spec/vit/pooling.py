"""Another pooling over the same body."""

from __future__ import annotations

from vit_spec.errors import VitportError
from vit_spec.vit.config import Pooling, ViTConfig
from vit_spec.vit.parameters import parameters


def with_pool(config: ViTConfig, pool: Pooling) -> ViTConfig:
    """The config with another pooling, if a trained model can take it: all but its heads must have what it needs.

    Raises:
        VitportError: for a pooling that needs parameters that the model lacks, or needs them in another shape.
    """
    changed = config.replace(pool=pool)
    own, needed = (
        {entry.name: entry.shape for entry in parameters(it.replace(num_classes=0))} for it in (config, changed)
    )
    lacking = [name for name, shape in needed.items() if own.get(name) != shape]
    if lacking:
        raise VitportError(
            f"pool={pool!r} cannot take the place of {config.pool!r}, for the model does not have {', '.join(lacking)} "
            f"for it: keep pool={config.pool!r}, or create a new model with pool={pool!r}."
        )
    return changed
