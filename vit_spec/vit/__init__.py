"""The Vision Transformer family: config, parameters, cost, named models."""
