"""lucidrains' vit-pytorch, ``ViT`` since 1.0: LayerNorms before and after the projection of patches.

A file of 1.0 to 1.2 has ``fn.`` in its blocks and normalises the pooled vector in ``mlp_head.0``; later files have one
after the blocks. Files that this project writes are the newest version's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from conversion.checkpoint import Checkpoint
from conversion.containers import torch_file
from conversion.format import Format
from conversion.limits import margin_around_patches, unsupported_fields
from conversion.second_reading.vit import PartNames, SecondReading
from conversion.tensors.rules import Rule, Rules, module
from conversion.tensors.table import Shapes, TensorTable
from conversion.tensors.transforms import PixelRows, Unbatched
from vit_spec import ViTConfig, VitportError

LAYER = "transformer.layers.{i}"
PATCHES = (
    *module("patch_embed.pixel_norm", "to_patch_embedding.1"),
    Rule("patch_embed.proj.weight", "to_patch_embedding.2.weight", PixelRows()),
    Rule("patch_embed.proj.bias", "to_patch_embedding.2.bias"),
    *module("patch_embed.norm", "to_patch_embedding.3"),
)


def blocks(inside: str, norm2: str, first: str, second: str) -> tuple[Rule, ...]:
    """The blocks' rules, but for the attention's output projection.

    Args:
        inside: what precedes the names of the attention's layers.
        norm2, first, second: norm and layers of the MLP.
    """
    return (
        *module("blocks.{i}.norm1", f"{LAYER}.0.norm"),
        Rule("blocks.{i}.attn.qkv.weight", f"{LAYER}.0.{inside}to_qkv.weight"),
        *module("blocks.{i}.norm2", f"{LAYER}.1.{norm2}"),
        *module("blocks.{i}.mlp.fc1", f"{LAYER}.1.{first}"),
        *module("blocks.{i}.mlp.fc2", f"{LAYER}.1.{second}"),
    )


LATE = (*blocks("", "net.0", "net.1", "net.4"), *module("blocks.{i}.attn.proj", f"{LAYER}.0.to_out.0"))
EARLY = (*blocks("fn.", "norm", "fn.net.0", "fn.net.3"), *module("blocks.{i}.attn.proj", f"{LAYER}.0.fn.to_out.0"))
BLOCK = PartNames(
    patches=("to_patch_embedding.2",), pixel_norm=("to_patch_embedding.1",), patch_norm=("to_patch_embedding.3",),
    block=("transformer.layers.{i}",), norm1=("0.norm",), qkv=("0.to_qkv", "0.fn.to_qkv"),
    out=("0.to_out.0", "0.fn.to_out.0", "0.to_out"), norm2=("1.net.0", "1.norm"), first=("1.net.1", "1.fn.net.0"),
    second=("1.net.4", "1.net.3", "1.fn.net.3"), norm=("transformer.norm",),
    fc_norm=("mlp_head.0", "linear_head.0"), head=("mlp_head", "mlp_head.1", "linear_head", "linear_head.1"),
)  # fmt: skip
"""The parts that ``ViT`` and ``SimpleViT`` share."""


def facts(shapes: Shapes) -> dict[str, Any]:
    """What shapes of this library show, under its names.

    Raises:
        VitportError: if the heads together are not as wide as the tokens.
    """
    found: dict[str, Any] = {}
    if len(shapes.get("cls_token", ())) == 2:  # the version whose pooling decides whether there is one
        found["pool"] = "token"
    for name in ("mlp_head.0.weight", "linear_head.0.weight"):
        if len(shapes.get(name, ())) == 1:
            found["final_norm"] = "pooled"
    for name in ("transformer.layers.0.0.to_qkv.weight", "transformer.layers.0.0.fn.to_qkv.weight"):
        shape = shapes.get(name, ())
        if len(shape) == 2 and shape[0] != 3 * shape[1]:
            raise VitportError(
                f"{name} has shape {shape}: the heads together (heads x dim_head = {shape[0] / 3:g}) are not as wide "
                f"as the tokens (dim = {shape[1]}), and no config can say such an attention."
            )
    return found


def without_empty_token(table: TensorTable, config: Mapping[str, Any]) -> dict[str, str]:
    """The class token of a model that pools by the mean: no rows."""
    del config
    empty = table.shapes.get("cls_token", (1,))[0] == 0
    return {"cls_token": "it has no rows, for a model without a class token"} if empty else {}


def remarks(table: TensorTable) -> list[str]:
    """The patches, of which a file holds the number of pixels only."""
    patches = (shape for name, shape in table.shapes.items() if name.startswith("to_patch_embedding"))
    pixels = next(shape[-1] for shape in patches if len(shape) == 2)
    _, channels, side, _ = PixelRows().to_canonical([np.broadcast_to(np.int8(0), (1, pixels))])[0].shape
    return [f"a patch of {pixels} numbers is taken for {side} x {side} pixels of {channels}: the file does not say"]


def common_limits(config: ViTConfig, **allowed: tuple[Any, ...]) -> list[str]:
    """torch's epsilon, no bias of queries, keys and values, whole patches, and a head."""
    complaints = unsupported_fields(config, norm_eps=(1e-5,), qkv_bias=(False,), **allowed)
    if config.in_channels not in (1, 3):
        complaints.append(f"in_channels={config.in_channels} (a file has the number of a patch's pixels only)")
    head = [] if config.num_classes else ["a model without a head (it would give all tokens)"]
    return complaints + margin_around_patches(config) + head


def cannot_hold(config: ViTConfig) -> list[str]:
    """A class token or a mean, never both."""
    return common_limits(
        config,
        pixel_norm=(True,),
        patch_norm=(True,),
        class_token=(config.pool == "token",),
        pool=("token", "avg"),
        pos_embed=("prefix",) if config.class_token else ("patch", "prefix"),
    )


def _write(path: Path, table: TensorTable, checkpoint: Checkpoint, progress: Callable[[str], None]) -> None:
    if "cls_token" not in table:
        empty = np.zeros((0, checkpoint.config.embed_dim), np.float32)
        table = TensorTable({**table.tensors, **TensorTable.of({"cls_token": empty}).tensors})
    torch_file.write(path, table, checkpoint, progress)


FORMAT = Format(
    name="vit-pytorch",
    summary="lucidrains' vit-pytorch, the state_dict of its ViT in a PyTorch file",
    before=("vit-pytorch-plain",),
    names=Rules((
        Rule("cls_token", "cls_token", Unbatched()),
        Rule("pos_embed", "pos_embedding", Unbatched()),
        *PATCHES,
        *LATE,
        *EARLY,
        *module("norm", "transformer.norm"),
        *module("head", "mlp_head"),
        *module("fc_norm", "mlp_head.0"),
        *module("head", "mlp_head.1"),
    )),
    signature=(
        ("transformer.layers.0.0.to_qkv.weight", "transformer.layers.0.0.fn.to_qkv.weight"),
        "to_patch_embedding.3.weight",
        "pos_embedding",
    ),
    ignored_if=without_empty_token,
    conventions={"activation": "gelu", "norm_eps": 1e-5, "norm": "layernorm", "pool_prefix": True},
    shape_facts=facts,
    remarks=remarks,
    writer=_write,
    cannot_hold=cannot_hold,
    second_reading=SecondReading(
        names=replace(BLOCK, tokens=(("cls_token",),), positions=("pos_embedding",)),
        norm_eps=1e-5, activation="gelu", pool_prefix=True, flat_patches="channels last",
    ),
)  # fmt: skip
