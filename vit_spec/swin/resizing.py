"""How tables of relative position biases are resized for another window."""

from __future__ import annotations

from typing import Literal

WindowSize = int | tuple[int, int] | tuple[int | tuple[int, int], ...]
"""Tokens: a side, or (height, width), of the windows of all stages; or one of either for each stage. Two numbers are
always a height and a width: two stages take two pairs."""

OffsetResize = Literal["timm-geometric", "torch-bicubic", "geometric-cubic"]
"""Named after the code that each reproduces: timm's loader (bilinear between positions in geometric progression),
``torch.nn.functional.interpolate(mode="bicubic")`` (Microsoft's and mmdetection's), and SimMIM's, mmpretrain's and
BEiT's (a cubic spline through the same positions)."""
