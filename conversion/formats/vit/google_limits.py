"""What Google's formats cannot hold."""

from __future__ import annotations

from conversion.limits import unsupported_fields
from vit_spec import ViTConfig

_ACTIVATION = "because its users run the tanh form of GELU and would get other outputs without notice"
_EPSILON = "because its users run 1e-06 and would get other outputs without notice"


def cannot_hold(config: ViTConfig, *, class_row: bool, attention_pool: bool = False) -> list[str]:
    """What of a model would be lost, each item in a few words.

    Args:
        class_row: whether the format's position table has a row for the class token.
        attention_pool: whether the format has the MAP head.
    """
    pools = ("token",) if config.class_token else ("avg", "map") if attention_pool else ("avg",)
    positions = ("prefix",) if class_row else ("patch",)
    lost = unsupported_fields(
        config,
        activation=("gelu_tanh",),
        norm_eps=(1e-6,),
        qk_scale=(None, config.head_dim**-0.5),
        class_token=(True, False),
        pool=pools,
        pos_embed=positions if config.class_token else ("prefix", "patch"),  # without other tokens both are the same
        representation_size=(config.representation_size,),
    )
    reasons = {
        f"activation={config.activation!r}": f", {_ACTIVATION}",
        f"norm_eps={config.norm_eps!r}": f", {_EPSILON}",
        "pool='map'": "" if attention_pool else " (big-vision holds it)",
        "pool='avg'": " with a class token",
        "pos_embed='patch'": " with a class token (big-vision holds it)",
        "pos_embed='prefix'": " (google and google-linen hold it)",
    }
    return [what + reasons.get(what, "") for what in lost]
