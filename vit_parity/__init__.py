"""Runs both frameworks side by side and measures the difference; each framework is imported when it runs."""

from vit_parity.capture import (
    Activations,
    Capture,
    activations_of,
    capture_jax,
    capture_torch,
    jax_activations,
    torch_activations,
)
from vit_parity.certificate import Certificate
from vit_parity.compare import Findings, compare
from vit_parity.comparison import Comparison, Row, compare_captures
from vit_parity.endpoints.onnx_graph import onnx_activations
from vit_parity.explain import Explanation, explain
from vit_parity.measure import Difference, measure, measure_all
from vit_parity.points import activation_names, answer_name
from vit_parity.proof import check_verifiable, verify_conversion
from vit_parity.ulp import Ulps, measure_ulps, ulp_distance
from vit_parity.verify import Original, Requested, verify

__all__ = [
    "Activations",
    "Capture",
    "Certificate",
    "Comparison",
    "Difference",
    "Explanation",
    "Findings",
    "Original",
    "Requested",
    "Row",
    "Ulps",
    "activation_names",
    "activations_of",
    "answer_name",
    "capture_jax",
    "capture_torch",
    "check_verifiable",
    "compare",
    "compare_captures",
    "explain",
    "jax_activations",
    "measure",
    "measure_all",
    "measure_ulps",
    "onnx_activations",
    "torch_activations",
    "ulp_distance",
    "verify",
    "verify_conversion",
]
