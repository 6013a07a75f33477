"""Low-rank adapters (LoRA, Hu et al. 2022, section 4.1) merged into the weights that they change, as peft does."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from conversion.tensors.table import Tensor, TensorTable
from vit_spec import VitportError

_PART = re.compile(r"(?P<module>.+)\.lora_(?P<part>A|B)(\.(?P<adapter>[^.]+))?\.(?P<leaf>weight|bias)")
_SAVED = re.compile(r"\.modules_to_save\.[^.]+\.")
_REFUSED = ("use_dora", "use_qalora", "use_bdlora", "alora_invocation_tokens", "target_parameters", "layer_replication",
            "trainable_token_indices", "arrow_config", "kasa_config", "monteclora_config", "velora_config")  # fmt: skip
"""Entries of adapter_config.json that make another function of the adapter than the one that is merged here."""
_PLAIN_STARTS = (None, True, False, "gaussian", "eva", "orthogonal")
"""``init_lora_weights`` that leave the weights of the base as they are."""


@dataclass(frozen=True)
class Adapter:
    """An adapter's tensors by the names of the model that it was made for."""

    factors: Mapping[str, dict[str, Tensor]]
    """Module → its tensors ``A``, ``B`` and perhaps ``bias``."""
    replaced: Mapping[str, Tensor]
    """Whole tensors that were trained beside the adapter, such as a head's, or all those of the base."""


def parts(table: TensorTable) -> Adapter:
    """Sort a file's tensors.

    Raises:
        VitportError: for several adapters, or a tensor of an adapter of another kind.
    """
    factors: dict[str, dict[str, Tensor]] = {}
    replaced: dict[str, Tensor] = {}
    adapters: set[str] = set()
    for name, tensor in table.tensors.items():
        plain = re.sub(r"^(.*\.)?base_model\.model\.", "", name)
        if ".original_module." in plain:
            continue
        if match := _PART.fullmatch(plain):
            adapters.add(match["adapter"] or "")
            part = match["part"] if match["leaf"] == "weight" else "bias"
            factors.setdefault(match["module"], {})[part] = tensor
        elif ".lora_" in plain:
            raise VitportError(f"The adapter holds {name}, which is not a LoRA factor: merge it with peft.")
        else:
            replaced[_SAVED.sub(".", plain).replace(".base_layer.", ".")] = tensor
    if len(adapters) > 1:
        raise VitportError(f"The file holds several adapters ({', '.join(sorted(adapters))}): save one of them alone.")
    return Adapter(factors, replaced)


def check_config(config: Mapping[str, Any], *, whole: bool) -> None:
    """Refuse adapters that are merged in another way.

    Args:
        config: adapter_config.json.
        whole: whether the base's weights lie beside the adapter, as they were when it was trained.

    Raises:
        VitportError: with the entry that says so.
    """
    kind = config.get("peft_type", "LORA")
    if kind != "LORA":
        raise VitportError(
            f"adapter_config.json has peft_type={kind!r}, an adapter that is not merged here: merge it with peft's "
            "merge_and_unload(), and save the model."
        )
    for entry in _REFUSED:
        if config.get(entry):
            raise VitportError(
                f"adapter_config.json has {entry}={config[entry]!r}, an adapter that is not merged here: merge it with "
                "peft's merge_and_unload(), and save the model."
            )
    start = config.get("init_lora_weights")
    if not whole and start not in _PLAIN_STARTS:
        raise VitportError(
            f"adapter_config.json has init_lora_weights={start!r}, which changed the base's weights before training: "
            "merge it with peft, and save the model."
        )


def merge(
    adapter: Adapter, config: Mapping[str, Any], base: TensorTable, find: Callable[[str], str | None]
) -> tuple[TensorTable, list[str]]:
    """The base's tensors with the adapter merged: W + s·B·A, where s is alpha over the rank, or over its root.

    Args:
        adapter: what :func:`parts` found.
        config: adapter_config.json.
        base: the tensors to change.
        find: from a name of the adapter's model to the base's name; ``None`` if the base has no such tensor.

    Returns:
        The tensors, and the adapter's names that the base does not have.

    Raises:
        VitportError: if the base lacks a tensor that the adapter changes, or it has another shape.
    """
    tensors = dict(base.tensors)
    added: list[str] = []
    for name, tensor in adapter.replaced.items():
        own = find(name)
        added += [name] if own is None else []
        tensors[own or name] = tensor
    for module, factors in adapter.factors.items():
        own = find(f"{module}.weight")
        if own is None or set(factors) < {"A", "B"}:
            raise VitportError(f"The adapter changes {module}, which its base does not have: give the base it is for.")
        scale = _scale(module, factors["A"].shape[0], config)
        tensors[own] = _changed(own, tensors[own], factors, scale, transposed=bool(config.get("fan_in_fan_out")))
        if "bias" in factors:
            bias = find(f"{module}.bias")
            if bias is None:
                raise VitportError(
                    f"The adapter has a bias for {module}, which has none in the base: merge it with peft."
                )
            tensors[bias] = _added(tensors[bias], factors["bias"], scale)
    return TensorTable(tensors), added


def _scale(module: str, rank: int, config: Mapping[str, Any]) -> float:
    alphas = config.get("alpha_pattern") or {}
    own = next((alpha for key, alpha in alphas.items() if re.match(rf"(.*\.)?({key})$", module)), None)
    alpha = config.get("lora_alpha") if own is None else own
    if not isinstance(alpha, (int, float)) or isinstance(alpha, bool):
        raise VitportError(f"adapter_config.json has lora_alpha={alpha!r}, but must have a number: fetch it again.")
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _changed(name: str, weight: Tensor, factors: Mapping[str, Tensor], scale: float, *, transposed: bool) -> Tensor:
    """W + s·B·A in float64, rounded once to the weight's type; of a convolution, B is 1x1."""
    first, second = factors["A"], factors["B"]
    inputs, outputs = first.shape[1:], second.shape[0]
    shape = (*inputs, outputs) if transposed else (outputs, *inputs)
    if shape != weight.shape or math.prod(second.shape) != outputs * first.shape[0]:
        raise VitportError(
            f"The adapter's factors for {name}, {first.shape} and {second.shape}, do not fit its shape {weight.shape}: "
            "give the base that it is for."
        )

    def read() -> np.ndarray:
        a = first.read().astype(np.float64).reshape(first.shape[0], -1)
        b = second.read().astype(np.float64).reshape(outputs, -1)
        change = (b @ a).reshape(outputs, *inputs)
        merged = weight.read().astype(np.float64) + scale * (change.T if transposed else change)
        return merged.astype(weight.dtype)

    return Tensor(weight.shape, weight.dtype, read)


def _added(bias: Tensor, change: Tensor, scale: float) -> Tensor:
    def read() -> np.ndarray:
        return (bias.read().astype(np.float64) + scale * change.read().astype(np.float64)).astype(bias.dtype)

    return Tensor(bias.shape, bias.dtype, read)
