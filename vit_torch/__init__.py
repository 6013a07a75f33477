"""The Vision Transformer in PyTorch; ``vit_jax`` is the same model, file by file, in Flax NNX."""

from vit_torch.create import create_model
from vit_torch.layers.attention import Attention, attend_fused, set_attention
from vit_torch.layers.attention_pool import AttentionPool
from vit_torch.layers.drop_path import DropPath
from vit_torch.layers.layer_scale import LayerScale
from vit_torch.layers.mlp import Mlp, SwiGLU, SwiGLUPacked
from vit_torch.layers.norm import make_norm
from vit_torch.layers.patch_embed import PatchEmbed
from vit_torch.model import VisionModel
from vit_torch.vit.block import Block
from vit_torch.vit.parallel_block import ParallelBlock
from vit_torch.vit.vision_transformer import PreLogits, VisionTransformer

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
    "VisionModel",
    "VisionTransformer",
    "attend_fused",
    "create_model",
    "make_norm",
    "set_attention",
]
