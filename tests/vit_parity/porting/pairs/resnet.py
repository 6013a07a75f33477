"""``transformers.ResNetModel``."""

from __future__ import annotations

from functools import partial

from flax import nnx

from tests.vit_parity.porting.pairs.pair import Planted, PortedModel, attributes
from tests.vit_parity.porting.ports import ported_resnet, resnet, tokens


def _layers() -> dict[str, str]:
    stages = {"layers.0.one": "0.layers.0.layer.0", "layers.0.two": "0.layers.0.layer.1",
              "layers.1.one": "1.layers.0.layer.0", "layers.1.two": "1.layers.0.layer.1",
              "layers.1.short": "1.layers.0.shortcut", "layers.2.one": "1.layers.1.layer.0",
              "layers.2.two": "1.layers.1.layer.1"}  # fmt: skip
    names = {ours: f"encoder.stages.{theirs}" for ours, theirs in stages.items()} | {"stem": "embedder.embedder"}
    return {f"{ours}.conv": f"{theirs}.convolution" for ours, theirs in names.items()} | {
        f"{ours}.bn": f"{theirs}.normalization" for ours, theirs in names.items()
    }


def _own() -> list[Planted]:
    same = attributes("stem.conv", padding="SAME")
    told = "pads by (2, 4) in height and (2, 4) in width"
    return [
        Planted("stem SAME", same, "embedder.embedder.convolution", told),
        *(
            Planted(f"last {word}", attributes(f"layers.{at}", last=function), f"encoder.stages.{stage}", told)
            for at, stage in enumerate(("0", "1.layers.0", "1.layers.1"))
            for word, function, told in (
                ("none", lambda x: x, "uses no activation instead of ReLU"),
                ("leaky", partial(nnx.leaky_relu, negative_slope=0.01), "uses leaky ReLU (0.01) instead of ReLU"),
                ("GELU", partial(nnx.gelu, approximate=False), "uses GELU instead of ReLU"),
            )
        ),
    ]


PAIR = PortedModel("ResNet (transformers)", resnet, ported_resnet, tokens(2, 3, 40, 48), _layers(), _own)
