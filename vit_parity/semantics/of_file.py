"""From a file of any format to its own semantics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from conversion.containers import open_source
from conversion.identify.recognise import recognise
from conversion.tensors.table import TensorTable
from vit_parity.semantics.model import Facts, Semantics
from vit_parity.semantics.names import (
    GOOGLE,
    HUGGINGFACE,
    HUGGINGFACE_TOWER,
    MMPRETRAIN,
    OPENAI_CLIP,
    TIMM,
    TORCH_ENCODER,
    TORCHVISION,
    PartNames,
)
from vit_parity.semantics.readers import JaxReader, TorchReader, unchunked, unstacked
from vit_spec import ViTConfig, VitportError

_NAMES: dict[str, tuple[PartNames, type[TorchReader]]] = {
    "timm": (TIMM, TorchReader),
    "dinov2-chunked": (TIMM, TorchReader),
    "flax": (TIMM, JaxReader),
    "mmpretrain": (MMPRETRAIN, TorchReader),
    "torchvision": (TORCHVISION, TorchReader),
    "torch-encoder": (TORCH_ENCODER, TorchReader),
    "openai-clip": (OPENAI_CLIP, TorchReader),
    "google": (GOOGLE, JaxReader),
    "google-linen": (GOOGLE, JaxReader),
    "big-vision": (GOOGLE, JaxReader),
    "big-vision-scan": (GOOGLE, JaxReader),
    "huggingface-vit": (HUGGINGFACE, TorchReader),
    "huggingface-deit": (HUGGINGFACE, TorchReader),
    "huggingface-deit-one-head": (HUGGINGFACE, TorchReader),
    "huggingface-dinov2": (HUGGINGFACE, TorchReader),
    "huggingface-flax": (HUGGINGFACE, JaxReader),
    "huggingface-clip": (HUGGINGFACE_TOWER, TorchReader),
    "huggingface-clip-classifier": (replace(HUGGINGFACE_TOWER, norm=()), TorchReader),
    "huggingface-siglip": (HUGGINGFACE_TOWER, TorchReader),
    "huggingface-siglip-classifier": (HUGGINGFACE_TOWER, TorchReader),
}
_RESHAPED = {"dinov2-chunked": unchunked, "big-vision-scan": unstacked}
_HIDDEN_ACT = {
    "gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu_fast": "gelu_tanh",
    "quick_gelu": "quick_gelu", "silu": "silu", "swish": "silu", "relu": "relu",
}  # fmt: skip
_DEFAULTS = {
    "clip": {"layer_norm_eps": 1e-5, "hidden_act": "quick_gelu"},
    "siglip": {"layer_norm_eps": 1e-6, "hidden_act": "gelu_pytorch_tanh"},
    "dinov2": {"layer_norm_eps": 1e-6, "hidden_act": "gelu"},
}
"""Of transformers' config classes, by what ``model_type`` begins with; else those of ViT."""


def semantics_of_file(
    path: Path,
    config: ViTConfig,
    *,
    format: str | None = None,
    weights_key: str | None = None,
    dtype: np.dtype | None = None,
    activation: str | None = None,
    head: bool = True,
) -> Semantics:
    """The model of a file, to be run by the file's own names and conventions.

    Args:
        path: file or folder of weights, of any format but ONNX, whose graph says itself what it computes.
        config: for what the file does not tell: the number of heads, in most formats the epsilon and the activation.
        format: name of the naming scheme, instead of the recognised one.
        weights_key: as of :func:`conversion.load`.
        dtype: what every array is rounded to first, where the conversion was asked to.
        activation: in place of the file's own, where the conversion was asked to.
        head: ``False`` where the conversion was asked to drop the head, or to make a new one.

    Raises:
        VitportError: if the file cannot be read, or its format has no semantics of its own here.
    """
    source = open_source(path, weights_key)
    found = recognise(source.table, format, weights_key)
    if found.format.name not in _NAMES:
        raise VitportError(f"{path} is {found.format.summary}: there is no second reading of it to verify with.")
    names, reader = _NAMES[found.format.name]
    table: TensorTable = _RESHAPED.get(found.format.name, lambda table: table)(found.table)
    facts = _facts(found.format.name, config, source.config_json or {}, table)
    if (source.config_json or {}).get("pooler_act", "tanh") != "tanh":
        names = replace(names, pre_logits=())  # a stand-in, see conversion.config_json.huggingface.idle_pooler
    if not head:
        names = replace(names, head=(), head_dist=(), projection=())
    if activation is not None:
        facts = replace(facts, activation=activation)
    return Semantics(reader(table, dtype), names, facts)


def _facts(form: str, config: ViTConfig, config_json: Mapping[str, Any], table: TensorTable) -> Facts:
    told = Facts(
        heads=config.num_heads,
        eps=config.norm_eps,
        activation=config.activation,
        pool=config.pool,
        scale=config.qk_scale,
        centred=config.norm == "layernorm",
        post_norm=config.block == "post_norm",
        pool_prefix=config.pool_prefix,
        distilled=config.distilled,
    )
    if form.startswith(("google", "big-vision")):
        pool = "map" if any(name.endswith("probe") for name in table) else "token" if "cls" in table else "avg"
        return Facts(heads=config.num_heads, eps=1e-6, activation="gelu_tanh", pool=pool)
    if form == "torchvision":
        return Facts(heads=config.num_heads, eps=1e-6, activation="gelu", pool="token")
    if form == "openai-clip":
        return Facts(heads=config.num_heads, eps=1e-5, activation=config.activation, pool="token")
    if form.startswith("huggingface"):
        return _huggingface_facts(form, config_json, table)
    return told


def _huggingface_facts(form: str, config_json: Mapping[str, Any], table: TensorTable) -> Facts:
    own = config_json.get("vision_config", config_json)
    kind = str(own.get("model_type", config_json.get("model_type", "")))
    usual = next((values for start, values in _DEFAULTS.items() if kind.startswith(start)), {})
    act = _HIDDEN_ACT[own.get("hidden_act", usual.get("hidden_act", "gelu"))]
    pool = "token"
    if form == "huggingface-dinov2":
        act = "silu" if own.get("use_swiglu_ffn") else act
        pool = "token_avg" if "classifier.weight" in table else "token"
    elif form == "huggingface-clip-classifier":
        pool = "avg"
    elif form.startswith("huggingface-siglip"):
        pool = "avg" if form.endswith("classifier") else "map"
    return Facts(
        heads=own.get("num_attention_heads", 12),
        eps=own.get("layer_norm_eps", usual.get("layer_norm_eps", 1e-12)),
        activation=act,
        pool=pool,
    )
