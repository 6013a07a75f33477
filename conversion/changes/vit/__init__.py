"""The same function of a plain ViT, stated by other parameters."""
