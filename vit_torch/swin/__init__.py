"""The Swin Transformer; ``vit_jax.swin`` is the same, file by file."""

from vit_torch.swin.swin_transformer import SwinTransformer

MODEL = SwinTransformer
