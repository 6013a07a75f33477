"""Layers that every family builds from; ``vit_torch.layers`` is the same, file by file."""
