"""The Swin Transformer; ``vit_torch.swin`` is the same, file by file."""

from vit_jax.swin.swin_transformer import SwinTransformer

MODEL = SwinTransformer
