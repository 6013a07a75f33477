"""What can be compared: our models, one of transformers' or timm's, an ONNX graph, a capture from elsewhere."""

from vit_parity.endpoints.endpoint import Endpoint, Kind, endpoint_flow, parse_endpoint, run_endpoint

__all__ = ["Endpoint", "Kind", "endpoint_flow", "parse_endpoint", "run_endpoint"]
