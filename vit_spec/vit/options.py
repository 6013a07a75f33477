"""timm's names for fields of :class:`ViTConfig`."""

from __future__ import annotations

TIMM_NAMES: dict[str, str] = {
    "img_size": "image_size",
    "in_chans": "in_channels",
    "global_pool": "pool",
    "pool_include_prefix": "pool_prefix",
    "init_values": "layer_scale",
    "reg_tokens": "register_tokens",
    "scale_attn_norm": "attn_norm",
    "scale_mlp_norm": "mlp_norm",
}
"""Arguments of timm's ``VisionTransformer`` → the field that means the same.

``global_pool`` sets the pooling alone. For a mean of the patches timm also moves the last norm after it, unless it is
given ``fc_norm=False``; here that is ``final_norm="pooled"``.
"""

TIMM_NORM_BEHIND_POOLING = "fc_norm"
"""timm's argument for a last norm on the pooled vector; ``None`` means under a mean alone."""
