"""Random weights and images for tests: those that the benchmarks run on."""

from benchmarks.random_weights import random_array, random_images, random_params

__all__ = ["random_array", "random_images", "random_params"]
