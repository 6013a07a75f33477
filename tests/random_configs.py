"""Random configs that between them use every field of ``ViTConfig``, alone and in every combination that it allows."""

from __future__ import annotations

from typing import Any, get_args

from hypothesis import strategies as st

from vit_spec import ViTConfig
from vit_spec.vit.config import Activation, BlockKind, FinalNorm, MlpKind, Pooling, PositionEmbedding, PositionResize
from vit_spec.vit.rotary import AxialRotary, AxisOrder, DinoV3Rotary, MixedRotary, Pairs, Rotary

DROPS = ("drop_rate", "attn_drop_rate", "drop_path_rate")


def rotaries(head_dim: int) -> st.SearchStrategy[Rotary | None]:
    """None, or rotary positions of any kind that heads of that width can have."""
    thetas = st.sampled_from([3.0, 100.0])
    kinds: list[st.SearchStrategy[Any]] = [st.none()]
    if head_dim % 4 == 0:
        kinds.append(st.just(MixedRotary()))
        periods = st.sampled_from([None, tuple(1.5 + at for at in range(head_dim // 4))])
        kinds.append(st.builds(DinoV3Rotary, theta=thetas, periods=periods))
        kinds.append(
            st.builds(
                AxialRotary,
                theta=thetas,
                order=st.sampled_from(get_args(AxisOrder)),
                offset=st.sampled_from([0.0, 0.5, 1.0]),
                reference_grid=st.sampled_from([None, (3, 2)]),
                pairs=st.sampled_from(get_args(Pairs)),
            )
        )
    return st.one_of(*kinds)


@st.composite
def vit_configs(draw: st.DrawFn, num_classes: st.SearchStrategy[int] | None = None) -> ViTConfig:
    """A small ViT: sizes unlike each other, every option drawn, and only what contradicts itself left out.

    Options that take no part in the drawn combination (the MLP's form in a parallel block) keep their defaults, for the
    config refuses them.
    """
    heads, head_dim = draw(st.integers(1, 3)), draw(st.sampled_from([2, 3, 4, 5, 6, 8]))
    patch, rows, columns = draw(st.integers(2, 4)), draw(st.integers(1, 3)), draw(st.integers(2, 4))
    fields: dict[str, Any] = {
        "patch_size": patch,
        "image_size": (rows * patch + draw(st.integers(0, 1)), columns * patch + draw(st.integers(0, patch - 1))),
        "in_channels": draw(st.sampled_from([1, 3, 4])),
        "num_classes": draw(st.integers(0, 6) if num_classes is None else num_classes),
        "embed_dim": heads * head_dim,
        "num_heads": heads,
        "depth": draw(st.integers(1, 2)),
        **draw(st.sampled_from([{"mlp_ratio": 2.5}, {"mlp_hidden_dim": 13}])),
        "activation": draw(st.sampled_from(get_args(Activation))),
        "qk_scale": draw(st.sampled_from([None, 0.4])),
        "norm_eps": draw(st.sampled_from([1e-6, 1e-5, 1e-2])),
        "layer_scale": draw(st.sampled_from([None, 1e-5])),
        "register_tokens": draw(st.integers(0, 2)),
        "pos_embed": draw(st.sampled_from(get_args(PositionEmbedding))),
        "pos_embed_resize": draw(st.sampled_from(get_args(PositionResize))),
        "final_norm": draw(st.sampled_from(get_args(FinalNorm))),
    }
    options = ("qkv_bias", "qk_norm", "proj_bias", "pre_norm", "pixel_norm", "patch_bias", "patch_norm", "pool_prefix")
    for option in options:
        fields[option] = draw(st.booleans())
    fields["norm"], fields["norm_bias"] = draw(
        st.sampled_from([("layernorm", True), ("layernorm", False), ("rmsnorm", False)])
    )
    fields["block"] = draw(st.sampled_from(get_args(BlockKind)))
    if fields["block"] != "parallel":
        fields["qv_bias"] = not fields["qkv_bias"] and draw(st.booleans())
        fields["rotary"] = draw(rotaries(head_dim))
        fields["mlp"] = draw(st.sampled_from(get_args(MlpKind)))
        fields["mlp_norm"], fields["attn_norm"] = draw(st.booleans()), draw(st.booleans())
        fields["mlp_bias"] = draw(st.sampled_from([None, True, False]))
        fields["relative_bias"] = not fields["register_tokens"] and draw(st.booleans())
        fields["relative_hidden_dim"] = None if fields["relative_bias"] else draw(st.sampled_from([None, 5]))
    one_of_each = fields["block"] not in ("parallel", "branched")
    fields["scale_attention_only"] = fields["layer_scale"] is not None and one_of_each and draw(st.booleans())
    if fields["block"] == "branched":
        fields["branches"] = draw(st.integers(1, 3))
    positions = [fields.get(name) for name in ("rotary", "relative_bias", "relative_hidden_dim")]
    fields["differential"] = head_dim % 2 == 0 and not any(positions) and draw(st.booleans())
    fields["pool"] = draw(st.sampled_from(get_args(Pooling)))
    if fields["pool"] == "map":
        fields["map_heads"] = draw(st.sampled_from([None, 1, head_dim]))
        fields["map_hidden_dim"] = draw(st.sampled_from([None, 9]))
    fields["class_token"] = fields["pool"] in ("token", "token_avg") or draw(st.booleans())
    if fields["pool"] == "token_avg" and fields["final_norm"] == "pooled":
        fields["final_norm"] = "tokens"
    fields["distilled"] = not fields.get("relative_bias") and fields["pool"] == "token" and draw(st.booleans())
    fields["representation_size"] = None if fields["distilled"] else draw(st.sampled_from([None, 5]))
    fields |= {name: draw(st.sampled_from([0.0, 0.3])) for name in DROPS}
    return ViTConfig(**fields)
