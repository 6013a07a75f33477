"""Both frameworks run side by side, and the difference measured. Each framework is imported when it is run."""

from vit_parity.activations import Activations, activations_of, jax_activations, torch_activations
from vit_parity.certificate import Certificate
from vit_parity.measure import Difference, measure, measure_all
from vit_parity.onnx_activations import onnx_activations
from vit_parity.verify import Original, Requested, verify

__all__ = [
    "Activations",
    "Certificate",
    "Difference",
    "Original",
    "Requested",
    "activations_of",
    "jax_activations",
    "measure",
    "measure_all",
    "onnx_activations",
    "torch_activations",
    "verify",
]
