"""The Vision Transformer in Flax NNX; ``vit_torch`` is the same model, file by file, in PyTorch."""

from typing import TYPE_CHECKING

from vit_jax.lazy import on_demand

if TYPE_CHECKING:
    from vit_jax.create import create_model
    from vit_jax.layers.attention import Attention, attend_cudnn, attend_fused, set_attention
    from vit_jax.layers.attention_pool import AttentionPool
    from vit_jax.layers.drop_path import DropPath
    from vit_jax.layers.layer_scale import LayerScale
    from vit_jax.layers.mlp import Mlp, SwiGLU, SwiGLUPacked
    from vit_jax.layers.norm import make_norm
    from vit_jax.layers.patch_embed import PatchEmbed
    from vit_jax.params import get_params, set_params
    from vit_jax.vit.block import Block
    from vit_jax.vit.parallel_block import ParallelBlock
    from vit_jax.vit.vision_transformer import PreLogits, VisionTransformer
else:
    __getattr__, __dir__ = on_demand(
        __name__,
        {
            "layers.attention": ("Attention", "attend_cudnn", "attend_fused", "set_attention"),
            "layers.attention_pool": ("AttentionPool",),
            "vit.block": ("Block",),
            "create": ("create_model",),
            "layers.drop_path": ("DropPath",),
            "layers.layer_scale": ("LayerScale",),
            "layers.mlp": ("Mlp", "SwiGLU", "SwiGLUPacked"),
            "layers.norm": ("make_norm",),
            "vit.parallel_block": ("ParallelBlock",),
            "params": ("get_params", "set_params"),
            "layers.patch_embed": ("PatchEmbed",),
            "vit.vision_transformer": ("PreLogits", "VisionTransformer"),
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
