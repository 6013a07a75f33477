"""The Vision Transformer in Flax NNX; ``vit_torch`` is the same model, file by file, in PyTorch."""

from typing import TYPE_CHECKING

from vit_jax.lazy import on_demand

if TYPE_CHECKING:
    from vit_jax.attention import Attention, attend_cudnn, attend_fused, set_attention
    from vit_jax.attention_pool import AttentionPool
    from vit_jax.block import Block
    from vit_jax.create import create_model
    from vit_jax.drop_path import DropPath
    from vit_jax.layer_scale import LayerScale
    from vit_jax.mlp import Mlp, SwiGLU, SwiGLUPacked
    from vit_jax.norm import make_norm
    from vit_jax.parallel_block import ParallelBlock
    from vit_jax.params import get_params, set_params
    from vit_jax.patch_embed import PatchEmbed
    from vit_jax.vision_transformer import PreLogits, VisionTransformer
else:
    __getattr__, __dir__ = on_demand(
        __name__,
        {
            "attention": ("Attention", "attend_cudnn", "attend_fused", "set_attention"),
            "attention_pool": ("AttentionPool",),
            "block": ("Block",),
            "create": ("create_model",),
            "drop_path": ("DropPath",),
            "layer_scale": ("LayerScale",),
            "mlp": ("Mlp", "SwiGLU", "SwiGLUPacked"),
            "norm": ("make_norm",),
            "parallel_block": ("ParallelBlock",),
            "params": ("get_params", "set_params"),
            "patch_embed": ("PatchEmbed",),
            "vision_transformer": ("PreLogits", "VisionTransformer"),
        },
    )

__all__ = [
    "Attention",
    "AttentionPool",
    "Block",
    "DropPath",
    "LayerScale",
    "Mlp",
    "ParallelBlock",
    "PatchEmbed",
    "PreLogits",
    "SwiGLU",
    "SwiGLUPacked",
    "VisionTransformer",
    "attend_cudnn",
    "attend_fused",
    "create_model",
    "get_params",
    "make_norm",
    "set_attention",
    "set_params",
]
