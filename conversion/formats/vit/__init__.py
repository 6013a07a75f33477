"""The formats of the plain Vision Transformer: one file each."""
