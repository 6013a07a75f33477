"""facebookresearch/dinov3's state_dict: biases with a mask beside them, and the periods of its rotary positions."""

from collections.abc import Mapping

import numpy as np

from conversion.containers import torch_file
from conversion.format import Format
from conversion.formats.vit import mask_token
from conversion.formats.vit.huggingface_dinov3 import unsupported_dinov3
from conversion.formats.vit.huggingface_vit import READER_DEFAULTS
from conversion.second_reading.vit import PartNames, SecondReading
from conversion.tensors.rules import Rule, Rules, module
from conversion.tensors.table import Tensor, TensorTable
from vit_spec import Preprocessing, ViTConfig, VitportError
from vit_spec.vit.rotary import DinoV3Rotary

_PERIODS, _BIAS, _MASK = "rope_embed.periods", ".attn.qkv.bias", ".attn.qkv.bias_mask"
_COMMON = (
    Rule("cls_token", "cls_token"),
    Rule("reg_token", "storage_tokens"),
    *module("patch_embed.proj", "patch_embed.proj"),
    *(
        rule
        for name in ("norm1", "attn.qkv", "attn.proj", "norm2")
        for rule in module(f"blocks.{{i}}.{name}", f"blocks.{{i}}.{name}")
    ),
    *(Rule(f"blocks.{{i}}.attn.{part}_bias", f"blocks.{{i}}.attn.{part}_bias") for part in "qv"),
    *(Rule(f"blocks.{{i}}.ls{at}.gamma", f"blocks.{{i}}.ls{at}.gamma") for at in (1, 2)),
    *module("norm", "norm"),
    *module("head", "head"),
)
_PLAIN = {"fc1": "fc1", "fc2": "fc2"}
_GATED = {"fc1_g": "w1", "fc1_x": "w2", "fc2": "w3"}


def _mlp(names: Mapping[str, str]) -> tuple[Rule, ...]:
    return tuple(
        rule
        for ours, theirs in names.items()
        for rule in module(f"blocks.{{i}}.mlp.{ours}", f"blocks.{{i}}.mlp.{theirs}")
    )


class _Names(Rules):
    """Multiplies biases by their masks, which are 0 for keys, and writes the masks and periods of its own code."""

    def read(self, table: TensorTable) -> tuple[TensorTable, list[str]]:
        tensors = dict(table.tensors)
        masks = {name: _checked(name, table) for name in table if name.endswith(_MASK)}
        keys = any(np.split(mask, 3)[1].any() for mask in masks.values())
        for name, mask in masks.items():
            at = name.removesuffix(_MASK)
            if at + _BIAS not in tensors:
                raise VitportError(f"{name} came without {at}{_BIAS}: the file is incomplete, so fetch it again.")
            bias, D = tensors.pop(at + _BIAS), len(mask) // 3
            del tensors[name]
            parts = {_BIAS: slice(None)} if keys else {".attn.q_bias": slice(D), ".attn.v_bias": slice(2 * D, None)}
            tensors |= {at + part: _masked(bias, mask, rows) for part, rows in parts.items()}
        return super().read(TensorTable(tensors))

    def write(self, table: TensorTable, config: ViTConfig) -> TensorTable:
        rules = Rules((*_COMMON, *_mlp(_GATED if config.mlp == "swiglu" else _PLAIN)))
        tensors = dict(rules.write(table, config).tensors)
        for name in [name for name in tensors if name.endswith((".attn.q_bias", _BIAS))]:
            at = name.removesuffix(".attn.q_bias").removesuffix(_BIAS)
            if config.qv_bias:
                tensors[at + _BIAS] = _with_keys(tensors.pop(name), tensors.pop(f"{at}.attn.v_bias"))
            tensors[at + _MASK] = _mask(tensors[at + _BIAS], 0 if config.qv_bias else 1)
        return TensorTable(tensors | TensorTable.of(_beside(table, config)).tensors)


def _checked(name: str, table: TensorTable) -> np.ndarray:
    mask = table[name].astype(np.float32)
    if not np.isin(mask, (0.0, 1.0)).all():
        raise VitportError(
            f"{name} holds other values than 0 and 1, as in a model that was never initialised: load its weights, or "
            "call init_weights(), before you save it."
        )
    return mask


def _masked(bias: Tensor, mask: np.ndarray, rows: slice) -> Tensor:
    """The bias where its mask is 1, and 0 elsewhere."""
    kept = mask[rows] > 0
    return Tensor(kept.shape, bias.dtype, lambda: np.where(kept, bias.read()[rows], np.zeros((), bias.dtype)))


def _with_keys(q: Tensor, v: Tensor) -> Tensor:
    """The bias of the joint layer, 0 for keys."""
    return Tensor((3 * q.shape[0],), q.dtype, lambda: np.concatenate([q.read(), np.zeros_like(q.read()), v.read()]))


def _mask(bias: Tensor, keys: int) -> Tensor:
    """1 for queries and values, ``keys`` for keys."""
    return Tensor(bias.shape, bias.dtype, lambda: np.repeat(np.array([1, keys, 1], bias.dtype), bias.shape[0] // 3))


def _beside(table: TensorTable, config: ViTConfig) -> dict[str, np.ndarray]:
    """The periods, in float32 as the code computes them, and a mask token."""
    assert config.rotary is not None
    periods = config.rotary.all_periods(config.head_dim)  # pyright: ignore[reportAttributeAccessIssue]  # cannot_hold
    return {_PERIODS: np.array(periods, np.float32), "mask_token": mask_token.blank(table, config)}


def buffer_facts(aside: TensorTable, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, object]:
    """The periods, where they are not those of theta 100 as float32 rounds them; they show the heads' width."""
    periods = aside[_PERIODS].astype(np.float64).reshape(-1)
    if not len(periods) or not (np.isfinite(periods).all() and (periods > 0).all()):
        raise VitportError(f"{_PERIODS} does not hold positive numbers: fetch the file again.")
    rotary, quarter = DinoV3Rotary(), len(periods)
    usual = np.array(rotary.all_periods(4 * quarter))
    if np.abs(periods / usual - 1).max() > _ROUNDING:
        rotary = DinoV3Rotary(periods=tuple(map(float, periods)))
    width = shapes["blocks.0.attn.qkv.weight"][-1]
    return {"rotary": rotary, "num_heads": width // (4 * quarter)}


_ROUNDING = 2.0**-21
"""Four units in the last place of float32: powers are computed in it."""


def shape_facts(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, object]:
    """The MLPs of the code: GELU, or gated by SiLU."""
    return {"activation": "silu" if "blocks.0.mlp.w1.weight" in shapes else "gelu"}


def remarks(table: TensorTable) -> list[str]:
    """Biases that the code never adds."""
    hidden = [
        name.removesuffix("_mask")
        for name in table
        if name.endswith(_MASK) and (table[name.removesuffix("_mask")].astype(np.float32)[table[name] == 0] != 0).any()
    ]
    return [f"left out what bias_mask hides of {len(hidden)} biases, as the code does"] if hidden else []


def cannot_hold(config: ViTConfig) -> list[str]:
    """The code fixes epsilon, activations and the class token; its backbones have no head."""
    rotary = config.rotary
    held = isinstance(rotary, DinoV3Rotary) and (rotary.theta == DinoV3Rotary().theta or rotary.periods is not None)
    return unsupported_dinov3(
        config,
        norm_eps=(1e-5,),
        activation=("silu" if config.mlp == "swiglu" else "gelu",),
        rotary=(rotary,) if held else (),
    )


FORMAT = Format(
    name="dinov3",
    summary="facebookresearch/dinov3's state_dict in a PyTorch file",
    names=_Names((*_COMMON, *_mlp(_PLAIN), *_mlp(_GATED))),
    signature=(_PERIODS, "blocks.0.attn.qkv.weight"),
    before=("timm",),
    set_aside={
        _PERIODS: "periods of rotary positions, which are read as a fact",
        "mask_token": mask_token.UNREAD,
        "projectors.*": "the projectors of distillation, in no forward pass",
        "local_cls_norm.*": "a norm of small crops in training, in no forward pass",
    },
    conventions={"pool": "token", "pos_embed": "none", "norm": "layernorm", "norm_eps": 1e-5},
    shape_facts=shape_facts,
    buffer_facts=buffer_facts,
    remarks=remarks,
    preprocessing=Preprocessing(crop_fraction=1.0),
    reader_defaults=READER_DEFAULTS,
    writer=torch_file.write,
    cannot_hold=cannot_hold,
    second_reading=SecondReading(
        names=PartNames(
            patches=("patch_embed.proj",), tokens=(("cls_token",), ("storage_tokens",)), block=("blocks.{i}",),
            norm1=("norm1",), qkv=("attn.qkv",), out=("attn.proj",), scale1=("ls1.gamma",), norm2=("norm2",),
            first=("mlp.fc1",), gate=("mlp.w1",), gated=("mlp.w2",), second=("mlp.fc2", "mlp.w3"),
            scale2=("ls2.gamma",), inside={"bias mask": ("attn.qkv.bias_mask",)}, norm=("norm",), head=("head",),
        ),
        norm_eps=1e-5, pool="token", rotary=DinoV3Rotary(), periods="rope_embed.periods",
    ),
)  # fmt: skip
