"""The Vision Transformer; ``vit_jax.vit`` is the same, file by file."""

from vit_torch.vit.vision_transformer import VisionTransformer

MODEL = VisionTransformer
