"""The Vision Transformer; ``vit_torch.vit`` is the same, file by file."""

from vit_jax.vit.vision_transformer import VisionTransformer

MODEL = VisionTransformer
