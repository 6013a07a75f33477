"""Swin Transformers, versions 1 and 2, as data: config, parameters, windows, cost, names."""
