"""Vision Transformers in PyTorch; ``vit_jax`` has the same models, file by file, in Flax NNX."""

from vit_torch.create import create_model
from vit_torch.layers.attention import Attention, attend_fused, set_attention
from vit_torch.layers.attention_pool import AttentionPool
from vit_torch.layers.drop_path import DropPath
from vit_torch.layers.layer_scale import LayerScale
from vit_torch.layers.mlp import Mlp, SwiGLU, SwiGLUPacked
from vit_torch.layers.norm import make_norm
from vit_torch.layers.patch_embed import PatchEmbed
from vit_torch.model import VisionModel
from vit_torch.swin.block import SwinBlock
from vit_torch.swin.patch_merging import PatchMerging
from vit_torch.swin.swin_transformer import SwinTransformer
from vit_torch.swin.window_attention import WindowAttention
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
    "PatchMerging",
    "PreLogits",
    "SwiGLU",
    "SwiGLUPacked",
    "SwinBlock",
    "SwinTransformer",
    "VisionModel",
    "VisionTransformer",
    "WindowAttention",
    "attend_fused",
    "create_model",
    "make_norm",
    "set_attention",
]
