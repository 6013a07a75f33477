"""Inference: :func:`compile_inference` makes one compiled function of a model, on all devices of the process."""

from vit_jax.inference.compile import compile_inference
from vit_jax.inference.data_parallel import DataParallel, offer_cores
from vit_jax.inference.inference import Inference
from vit_jax.inference.microbatch import microbatched

__all__ = ["DataParallel", "Inference", "compile_inference", "microbatched", "offer_cores"]
