"""A plain ViT run by other software: its names of layers and weights, in ours."""
