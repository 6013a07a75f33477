"""The Vision Transformer; ``vit_jax.vit`` is the same, file by file."""
