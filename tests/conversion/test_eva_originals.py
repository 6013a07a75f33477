"""Files of BAAI's EVA, EVA-02 and EVA-CLIP, and of Microsoft's BEiT, under the names of their authors' code.

The names are those that the authors' classes give their state_dicts (baaivision/EVA: EVA-01/eva, EVA-02/asuka,
EVA-CLIP/rei; microsoft/unilm: beit). Run beside that code, answers were those of its classes to 4e-7 in float32, in
each of these cases.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import conversion
from tests.random_weights import random_params
from vit_spec import ViTConfig
from vit_spec.vit.rotary import AxialRotary

SMALL = ViTConfig(
    image_size=(42, 42), patch_size=14, embed_dim=24, depth=2, num_heads=3, num_classes=5, mlp_hidden_dim=17,
    qkv_bias=False, qv_bias=True,
)  # fmt: skip
GATED: dict[str, Any] = {"activation": "silu", "rotary": AxialRotary(reference_grid=(16, 16))}
MEAN: dict[str, Any] = {"pool": "avg", "final_norm": "pooled"}
BEIT: dict[str, Any] = {"relative_bias": True, "layer_scale": 0.1}
TEXT = {
    "logit_scale": (),
    "text.token_embedding.weight": (7, 8),
    "text.transformer.resblocks.0.attn.in_proj_weight": (24, 8),
}
CASES: dict[str, tuple[dict[str, Any], str, dict[str, tuple[int, ...]]]] = {
    "EVA-CLIP g": ({}, "visual.", TEXT),
    "EVA-CLIP E, norms after": ({"block": "post_norm"}, "visual.", TEXT),
    "EVA-02-CLIP L": (
        GATED | {"mlp": "swiglu", "mlp_norm": True, "attn_norm": True},
        "visual.",
        TEXT | {f"visual.{at}rope.freqs_{part}": (9, 8) for at in ("", "blocks.0.attn.") for part in ("cos", "sin")},
    ),
    "EVA-02 B": (GATED | MEAN | {"mlp": "swiglu", "mlp_norm": True}, "", {"rope.freqs_cos": (9, 8)}),
    "EVA-02 Ti": (GATED | MEAN | {"mlp": "swiglu_packed"}, "", {"blocks.1.attn.rope.freqs_sin": (9, 8)}),
    "BEiT": (BEIT | MEAN | {"pos_embed": "none"}, "", {"blocks.0.attn.relative_position_index": (10, 10)}),
    "BEiT before fine-tuning": (
        BEIT | {"num_classes": 0, "pos_embed": "none"},
        "",
        {"mask_token": (1, 1, 24), "lm_head.weight": (9, 24), "lm_head.bias": (9,),
         "rel_pos_bias.relative_position_index": (10, 10)},
    ),
}  # fmt: skip
"""What the config has beside the sizes; the prefix of the image tower; what else is in the file."""


def authors(config: ViTConfig, params: dict[str, np.ndarray], shared: bool) -> dict[str, np.ndarray]:
    """The arrays under the authors' names."""
    named: dict[str, np.ndarray] = {}
    for name, array in params.items():
        if name.endswith("relative_position_bias_table") and shared:
            named["rel_pos_bias.relative_position_bias_table"] = array
        elif name.endswith("attn.qkv.weight") and config.mlp_norm:
            for part, rows in zip("qkv", np.split(array, 3), strict=True):
                named[name.replace("qkv", f"{part}_proj")] = rows
        else:
            for ours, theirs in (
                (r"mlp\.fc1_g", "mlp.w1"), (r"mlp\.fc1_x", "mlp.w2"), (r"mlp\.norm", "mlp.ffn_ln"),
                (r"attn\.norm", "attn.inner_attn_ln"), (r"ls(\d)\.gamma", r"gamma_\1"),
                *(((r"mlp\.fc1", "mlp.w12"), (r"mlp\.fc2", "mlp.w3")) if config.mlp != "plain" else ()),
            ):  # fmt: skip
                name = re.sub(ours, theirs, name)
            named[name] = array
    return named


@pytest.mark.parametrize("case", CASES)
def test_the_names_of_the_authors_are_read(case: str, tmp_path: Path) -> None:
    options, prefix, others = CASES[case]
    config = SMALL.replace(**options)
    params = random_params(config, 1, np.float32)
    shared = "before" in case
    if shared:
        own = {name: array for name, array in params.items() if name.endswith("relative_position_bias_table")}
        params |= dict.fromkeys(own, next(iter(own.values())))
    state = {f"{prefix}{name}": torch.tensor(array) for name, array in authors(config, params, shared).items()}
    state |= {name: torch.ones(shape) for name, shape in others.items()}
    torch.save(state if prefix else {"model": state, "epoch": 3}, tmp_path / "a.pt")
    told = ("num_heads", "norm_eps", "rotary", "activation", "norm", "pool", "block", "layer_scale", "mlp_hidden_dim")
    found = conversion.load(tmp_path / "a.pt", facts={name: getattr(config, name) for name in told})
    assert found.provenance.format == "timm-eva"
    assert found.config == config
    assert set(found.params) == set(params)
    assert all(np.array_equal(found.params[name], params[name]) for name in params)
