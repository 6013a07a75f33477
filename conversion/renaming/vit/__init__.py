"""What the names and shapes of a plain ViT suggest."""
