"""``transformers.GPT2Model``."""

from __future__ import annotations

import numpy as np
from flax import nnx

from tests.vit_parity.porting.pairs.pair import NO_MASK, NO_SCALE, SCALE_OF_WIDTH, Planted, PortedModel, attributes
from tests.vit_parity.porting.ports import gpt2, ported_gpt2

IDS = np.random.default_rng(3).integers(0, 50, (2, 9))


def _layers() -> dict[str, str]:
    found = {"tokens": "wte", "places": "wpe", "ln": "ln_f"}
    names = {"qkv": "attn.c_attn", "proj": "attn.c_proj", "up": "mlp.c_fc", "down": "mlp.c_proj", "ln_attn": "ln_1",
             "ln_mlp": "ln_2"}  # fmt: skip
    return found | {f"blocks.{at}.{ours}": f"h.{at}.{theirs}" for at in range(2) for ours, theirs in names.items()}


def _own() -> list[Planted]:
    found = []
    for at in range(2):
        ours, attention, mlp = f"blocks.{at}", f"h.{at}.attn.c_proj", f"h.{at}.mlp.c_proj"
        found += [
            NO_MASK.at(ours, attention),
            NO_SCALE.at(ours, attention),
            SCALE_OF_WIDTH.at(ours, attention),
            Planted("scale 0.3", attributes(ours, scale=0.3), attention, "scales its scores by 0.3, not by 0.408248"),
            Planted("keys first", attributes(ours, order=(1, 0, 2)), attention,
                    "takes for queries, keys and values its keys, queries, values"),
            Planted("values first", attributes(ours, order=(2, 0, 1)), attention,
                    "takes for queries, keys and values its values, queries, keys"),
            Planted("GELU by erf", attributes(ours, act=lambda x: nnx.gelu(x, approximate=False)), mlp,
                    "uses GELU instead of tanh GELU"),
            Planted("ReLU", attributes(ours, act=nnx.relu), mlp, "uses ReLU instead of tanh GELU"),
            Planted("SiLU", attributes(ours, act=nnx.silu), mlp, "uses SiLU instead of tanh GELU"),
            Planted("softplus", attributes(ours, act=nnx.softplus), mlp,
                    "uses softplus instead of tanh GELU"),
            Planted("a sigmoid of its own", attributes(ours, act=lambda x: x * nnx.sigmoid(1.5 * x)), mlp),
        ]  # fmt: skip
    return [*found, Planted("first position", attributes("", first=1), "wpe", "looks up the row behind each")]


PAIR = PortedModel("GPT-2 (transformers)", gpt2, ported_gpt2, {"input_ids": IDS}, _layers(), _own, IDS)
