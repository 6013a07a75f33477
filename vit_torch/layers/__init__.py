"""Layers that every family builds from; ``vit_jax.layers`` is the same, file by file."""
