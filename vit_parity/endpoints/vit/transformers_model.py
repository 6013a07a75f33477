"""The activations of a Hugging Face model, under our names."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np

from conversion.formats import FORMATS
from conversion.second_reading.vit import SecondReading
from vit_parity.capture import Capture
from vit_parity.frameworks import torch_array, torch_dtype_name, torch_images
from vit_parity.points import activation_names
from vit_spec import ViTConfig, VitportError

_OUTSIDE = {"patches": "patch_embed.proj", "patch_norm": "patch_embed.norm", "norm": "norm", "pool_norm": ""}
"""Parts of ``PartNames`` → our layers; an empty name for a part that is not observed."""
_INSIDE = {
    "norm1": "norm1", "norm2": "norm2", "query": "q", "key": "k", "value": "v", "out": "attn.proj",
    "scale1": "ls1.gamma", "scale2": "ls2.gamma", "first": "mlp.fc1", "second": "mlp.fc2",
}  # fmt: skip
_NUMBER = re.compile(r"\.(\d+)(?=\.|$)")


@cache
def _modules() -> Mapping[str, str]:
    """The end of a module's name in any version of transformers → our layer, with ``{i}`` for the block's number.

    The second readings of transformers' formats have the names.
    """
    readings = [format.second_reading.names for format in FORMATS.values()
                if format.group == "huggingface" and isinstance(format.second_reading, SecondReading)]  # fmt: skip
    blocks = {block for names in readings for block in names.block}
    found = {module: ours for names in readings for part, ours in _OUTSIDE.items() for module in getattr(names, part)}
    for names in readings:
        for part, ours in _INSIDE.items():
            for module in getattr(names, part):
                own = module.rpartition(".")[0] if ours.endswith(".gamma") else module  # the module of the factors
                found |= {f"{block}.{own}": f"blocks.{{i}}.{ours.removesuffix('.gamma')}" for block in blocks}
    return found | dict.fromkeys(blocks, "blocks.{i}")


def _ours(name: str) -> str | None:
    """Our name of a module of transformers; ``None`` if it is not observed."""
    number = _NUMBER.search(name)
    general = name if number is None else name[: number.start()] + ".{i}" + name[number.end() :]
    ends = [end for end in _modules() if general == end or general.endswith(f".{end}")]
    ours = _modules()[max(ends, key=len)] if ends else ""
    return ours.format(i=number[1] if number else "") or None


def capture_transformers(model: Any, config: ViTConfig, images: np.ndarray, title: str = "transformers") -> Capture:
    """Run a ViT, DeiT, DINOv2 or 3, BEiT, CLIP or SigLIP model of transformers, and keep what has a name here.

    Args:
        model: in evaluation mode, with eager attention.
        config: the same model as vitport reads it.
        images: (B, H, W, C), preprocessed.

    Raises:
        VitportError: if the model has no blocks under names known here.
    """
    import torch
    import transformers

    found: dict[str, Any] = {}
    modules = {name: ours for name, _ in model.named_modules() if (ours := _ours(name)) is not None}
    if "blocks.0" not in modules.values():
        raise VitportError(
            f"{type(model).__name__} has no blocks under names known here: compare it through a capture."
        )
    handles = [handle for name, ours in modules.items() for handle in _watch(model.get_submodule(name), ours, found)]
    weight = next(model.parameters())
    try:
        with torch.no_grad():
            output = model(torch_images(images, weight), output_attentions=True)
    finally:
        for handle in handles:
            handle.remove()
    for at, weights in enumerate(output.attentions or ()):
        found[f"blocks.{at}.attn.softmax"] = weights
    if config.num_classes and "logits" in output:
        found["logits"] = output.logits
    facts = {"framework": f"transformers {transformers.__version__}, torch {torch.__version__}"}
    facts["dtype"] = torch_dtype_name(weight)
    return Capture(title, _in_order(found, config), images, facts)


def _watch(module: Any, ours: str, found: dict[str, Any]) -> list[Any]:
    """Hooks on one module."""

    def output(_: Any, __: Any, result: Any) -> None:
        found[ours] = result[0] if isinstance(result, tuple) else result

    def given(key: str) -> Callable[..., None]:
        return lambda _, inputs: found.update({key: inputs[0]})

    hooks = [module.register_forward_hook(output)]
    inputs = {"attn.proj": "attn.heads", "norm2": "mid", "mlp.fc2": "mlp.act"}
    block, _, layer = ours.removeprefix("blocks.").partition(".")
    if ours == "blocks.0":
        hooks.append(module.register_forward_pre_hook(given("embed")))
    elif layer in inputs:
        hooks.append(module.register_forward_pre_hook(given(f"blocks.{block}.{inputs[layer]}")))
    return hooks


def _in_order(found: dict[str, Any], config: ViTConfig) -> dict[str, np.ndarray]:
    """The activations in our layout and order, without those whose shape differs here."""
    import torch

    def heads(x: Any) -> Any:
        B, N, _ = x.shape
        return x.reshape(B, N, config.num_heads, config.head_dim).transpose(1, 2)  # (B, h, N, d)

    patches = found.get("patch_embed.proj")
    if patches is not None and patches.ndim == 4:  # a convolution, not a module around it, which gives tokens
        found["patch_embed.proj"] = patches.flatten(2).transpose(1, 2)  # (B, N, D)
    for at in (f"blocks.{block}" for block in range(config.depth)):
        parts = [found.pop(f"{at}.{part}", None) for part in "qkv"]
        if all(part is not None for part in parts):
            own = "qk" if config.qv_bias else "qkv"  # our joint layer and values come without the biases beside it
            if own == "qkv":
                found[f"{at}.attn.qkv"] = torch.cat(parts, dim=-1)
            if not config.qk_norm:
                found |= {
                    f"{at}.attn.{name}": heads(part) for name, part in zip("qkv", parts, strict=True) if name in own
                }
        if config.mlp != "plain":
            found.pop(f"{at}.mlp.fc1", None)
    if "norm" in found and found["norm"].ndim != 3:
        del found["norm"]
    return {name: torch_array(found[name]) for name in activation_names(config) if name in found}
