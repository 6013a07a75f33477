"""The activations of a Hugging Face model, under our names."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vit_parity.capture import Capture
from vit_parity.frameworks import torch_array, torch_dtype_name, torch_images
from vit_parity.points import activation_names
from vit_spec import ViTConfig, VitportError

_BLOCK = re.compile(r"(?:^|\.)layers?\.(\d+)$")
_PATCHES = re.compile(r"embeddings\.(patch_embeddings\.projection|patch_embedding)$")
_FINAL_NORM = re.compile(r"(^|\.)(?<!head\.)(layernorm|post_layernorm)$")
_LAYERS: dict[str, tuple[str, ...]] = {
    "norm1": ("layernorm_before", "norm1", "layer_norm1"),
    "norm2": ("layernorm_after", "norm2", "layer_norm2"),
    "q": ("attention.q_proj", "self_attn.q_proj", "attention.attention.query"),
    "k": ("attention.k_proj", "self_attn.k_proj", "attention.attention.key"),
    "v": ("attention.v_proj", "self_attn.v_proj", "attention.attention.value"),
    "attn.proj": ("attention.o_proj", "self_attn.out_proj", "attention.output.dense"),
    "ls1": ("layer_scale1",),
    "ls2": ("layer_scale2",),
    "mlp.fc1": ("mlp.fc1", "intermediate.dense"),
    "mlp.fc2": ("mlp.fc2", "output.dense"),
}
"""Our layer → what transformers (4 and 5) calls it within a block."""


def load_transformers(path: Path) -> Any:
    """The model of a folder that ``save_pretrained`` wrote, in evaluation mode; weights from safetensors only.

    Raises:
        VitportError: if transformers is missing or cannot load the folder.
    """
    try:
        import transformers
    except ImportError as error:
        raise VitportError(f"Running {path} needs transformers: pip install transformers.") from error
    if not (path / "config.json").is_file():
        raise VitportError(
            f"{path} is not a Hugging Face model: it has no config.json. Give a folder that save_pretrained wrote."
        )
    try:
        config = transformers.AutoConfig.from_pretrained(path, local_files_only=True)
        name = {"CLIPModel": "CLIPVisionModel", "SiglipModel": "SiglipVisionModel"}
        architecture = (config.architectures or ["AutoModel"])[0]
        kind = getattr(transformers, name.get(architecture, architecture))
        options: dict[str, Any] = {"local_files_only": True, "use_safetensors": True, "attn_implementation": "eager"}
        return kind.from_pretrained(path, **options).eval()
    except Exception as error:  # transformers raises many types
        raise VitportError(f"transformers cannot load {path} ({' '.join(str(error).split())}).") from error


def capture_transformers(model: Any, config: ViTConfig, images: np.ndarray, title: str = "transformers") -> Capture:
    """Run a ViT, DeiT, DINOv2, CLIP or SigLIP model of transformers and keep every activation that has a name here.

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
    handles = [handle for name, module in model.named_modules() for handle in _watch(name, module, found)]
    if not any(_BLOCK.search(name) for name, _ in model.named_modules()):
        raise VitportError(
            f"{type(model).__name__} has no blocks under names known here: compare it through a capture."
        )
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


def _watch(name: str, module: Any, found: dict[str, Any]) -> list[Any]:
    """Hooks on one module, chosen by its name."""

    def output(key: str) -> Callable[..., None]:
        return lambda _, __, result: found.update({key: result[0] if isinstance(result, tuple) else result})

    def given(key: str) -> Callable[..., None]:
        return lambda _, inputs: found.update({key: inputs[0]})

    if _PATCHES.search(name):
        return [module.register_forward_hook(output("patch_embed.proj"))]
    if _FINAL_NORM.search(name):
        return [module.register_forward_hook(output("norm"))]
    if match := _BLOCK.search(name):
        hooks = [module.register_forward_hook(output(f"blocks.{match[1]}"))]
        return [*hooks, module.register_forward_pre_hook(given("embed"))] if match[1] == "0" else hooks
    parent = re.search(r"(?:^|\.)layers?\.(\d+)\.(.+)$", name)
    ours = next((ours for ours, names in _LAYERS.items() if parent and parent[2] in names), None)
    if parent is None or ours is None:
        return []
    at = f"blocks.{parent[1]}"
    hooks = [module.register_forward_hook(output(f"{at}.{ours}"))]
    inputs = {"attn.proj": "attn.heads", "norm2": "mid", "mlp.fc2": "mlp.act"}
    if ours in inputs:
        hooks.append(module.register_forward_pre_hook(given(f"{at}.{inputs[ours]}")))
    return hooks


def _in_order(found: dict[str, Any], config: ViTConfig) -> dict[str, np.ndarray]:
    """The activations in our layout and order, without those whose shape differs here."""
    import torch

    def heads(x: Any) -> Any:
        B, N, _ = x.shape
        return x.reshape(B, N, config.num_heads, config.head_dim).transpose(1, 2)  # (B, h, N, d)

    if "patch_embed.proj" in found:
        found["patch_embed.proj"] = found["patch_embed.proj"].flatten(2).transpose(1, 2)  # (B, N, D)
    for at in (f"blocks.{block}" for block in range(config.depth)):
        parts = [found.pop(f"{at}.{part}", None) for part in "qkv"]
        if all(part is not None for part in parts):
            found[f"{at}.attn.qkv"] = torch.cat(parts, dim=-1)
            if not config.qk_norm:
                found |= {f"{at}.attn.{name}": heads(part) for name, part in zip("qkv", parts, strict=True)}
        if config.mlp != "plain":
            found.pop(f"{at}.mlp.fc1", None)
    if "norm" in found and found["norm"].ndim != 3:
        del found["norm"]
    return {name: torch_array(found[name]) for name in activation_names(config) if name in found}
