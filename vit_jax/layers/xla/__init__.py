"""Layers in the form that XLA, or a mesh of devices, computes best."""
