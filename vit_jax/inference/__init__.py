"""Inference on whatever devices there are."""
