"""The words of a :class:`ViTConfig`, and what they mean."""

from __future__ import annotations

from typing import Literal

MlpKind = Literal["plain", "swiglu", "swiglu_packed"]
"""``swiglu`` holds gate and value as ``fc1_g`` and ``fc1_x`` (AIMv2, EVA); ``swiglu_packed`` stacks them, gate
first, in one ``fc1`` of twice the hidden width (DINOv2 giant). Shazeer 2020, section 2."""

BlockKind = Literal["sequential", "post_norm", "original", "parallel", "branched"]
"""``sequential`` normalises the inputs of attention and of MLP (Dosovitskiy et al. 2021, equations 2 and 3);
``post_norm`` normalises their outputs (Swin v2's residual post-norm, Liu et al. 2022, section 3.2); ``original``
normalises the sums of inputs and outputs (the first Transformer, Vaswani et al. 2017, section 3.1; PyTorch's
``norm_first=False``); ``parallel`` gives both the same normalised input and adds their outputs (ViT-22B, Dehghani et
al. 2023, section 2); ``branched`` adds the outputs of several attentions, then of as many MLPs, each with a norm of its
own before it (Touvron et al. 2022, "Three things everyone should know about Vision Transformers", section 3)."""

NormKind = Literal["layernorm", "rmsnorm"]

PositionEmbedding = Literal["none", "patch", "prefix", "all"]
"""Which tokens the learned position table has rows for: patches alone (added before the other tokens are
prepended: big_vision, DeiT III, timm's ``no_embed_class``); also the class and distillation tokens, first
(ViT, DeiT, DINOv2 with registers as Meta released it); or also the registers."""

PositionResize = Literal[
    "torch-bicubic", "torch-bicubic-antialias", "torch-bilinear", "torch-bilinear-antialias", "torch-bicubic-corners",
    "scipy-zoom", "dinov2",
]  # fmt: skip
"""How a position table is resized to another grid, named after the code that it reproduces; see
``conversion.tensors.position_table``."""

Pooling = Literal["token", "avg", "map", "token_avg"]
"""What the head reads: the class token; the mean of the patch tokens; a learned query attending to all patch
tokens (MAP, Zhai et al. 2022, appendix); or class token and patch mean side by side (DINOv2's linear head)."""

FinalNorm = Literal["tokens", "pooled", "none"]
"""Where the last norm sits: on all tokens before pooling (``norm``), or on the pooled vector (``fc_norm``)."""
