"""The activation functions that configs name."""

from __future__ import annotations

from typing import Literal

Activation = Literal["gelu", "gelu_tanh", "quick_gelu", "silu", "relu"]
"""``gelu`` is the erf form (Hendrycks & Gimpel 2016, eq. 2), ``gelu_tanh`` its tanh approximation (the
default of Flax, hence of Google's weights), ``quick_gelu`` is ``x * sigmoid(1.702 x)`` (OpenAI CLIP)."""
