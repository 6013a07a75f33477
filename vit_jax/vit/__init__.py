"""The Vision Transformer; ``vit_torch.vit`` is the same, file by file."""
