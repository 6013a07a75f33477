"""What the names and shapes of a Vision Transformer's tensors say about its config."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from conversion.identify.family import HIDDEN
from conversion.tensors.table import Shapes
from vit_spec import UnstatedError, ViTConfig, VitportError
from vit_spec.reading import height_and_width
from vit_spec.vit.models.unsupported import ENCODER, UNSUPPORTED
from vit_spec.vit.presence import shown_options
from vit_spec.vit.relative import CLASS_ROWS, count_offsets
from vit_spec.vit.rotary import MixedRotary

NEVER_GUESSED = ("num_heads", "activation", "norm_eps", "pool", "norm")
"""Config fields that change outputs and that no shape shows: they must be stated somewhere, and are never guessed."""
CHANGED_BY_FINE_TUNING = frozenset({"head", "head_dist", "pre_logits", "pos_embed"})
"""First components of names whose shapes fine-tuning changes."""
EVERY_PARAMETER = (
    ViTConfig(representation_size=HIDDEN),
    ViTConfig(distilled=True, pixel_norm=True, patch_norm=True, pre_norm=True, register_tokens=1),
    ViTConfig(pool="map", final_norm="pooled"),
)
"""Between them, they have every parameter outside the blocks."""
HEAD_WIDTHS = (1, 2)
"""A head reads the pooled tokens, or the class token and the mean side by side."""

_TABLE = "blocks.0.attn.relative_position_bias_table"
_NETWORK = "blocks.0.attn.rel_pos.mlp.fc1.weight"
_PLAIN = ": vitport converts plain Vision Transformers"
_RADIO = (
    "RADIO's encoder, whose table of positions is resized and cut for every image: the same model under timm's names, "
    "such as vit_base_patch16_radio_v3, is read"
)
REFUSED = {
    ".attn.meta_mlp.fc1.weight": "a SwinV2-CR model, which is neither a Vision Transformer nor Swin v2",
    ".attn.rel_pos_h": "an encoder of SAM or ViTDet, whose attention is within windows" + _PLAIN,
    "conv_root/kernel": "a hybrid, whose patches come out of a ResNet" + _PLAIN,
    "patch_generator.cls_token.token": _RADIO,  # on disk, and in memory
    "embeddings.cls_register_token": _RADIO,
    "conv_proj.conv_last.weight": "a torchvision model with a stem of several convolutions" + _PLAIN,
}
"""Endings of names → what holds them: models that are almost ViTs."""
_RANKS = {
    "reg_token": 3, "pos_embed": 3, "head.weight": 2, "pre_logits.fc.weight": 2, "blocks.0.mlp.fc1.weight": 2,
    "blocks.0.mlp_out_proj.weight": 2, "blocks.0.attn.q_norm.weight": 1, "blocks.0.q_norm.weight": 1,
    _TABLE: 2, _NETWORK: 2,
}  # fmt: skip
"""Names whose shapes show facts, where a model has them → how many axes they have."""


def sizes_from_shapes(shapes: Shapes) -> dict[str, Any]:
    """The config fields that canonical names and shapes decide whatever else is known.

    Raises:
        VitportError: if the tensors are not a ViT's.
    """
    shapes, branches = _of_one_branch(shapes)
    parallel = any(name.startswith("blocks.0.in_proj.") for name in shapes)
    inner = ("in_norm", "in_proj", "mlp_out_proj") if parallel else ("norm1", "attn.qkv", "mlp.fc2")
    ranks = dict(zip((f"blocks.0.{name}.weight" for name in inner), (1, 2, 2), strict=True))
    needed = {"patch_embed.proj.weight": 4, **ranks}
    for name, rank in (needed | _RANKS).items():
        if name in needed and name not in shapes:
            raise VitportError(
                f"The tensors are not a Vision Transformer's: {name} is missing among {len(shapes)} names."
            )
        if name in shapes and len(shapes[name]) != rank:
            raise VitportError(
                f"{name} has shape {shapes[name]}, but must have {rank} ax{'is' if rank == 1 else 'es'}."
            )
    embed_dim, in_channels, patch_size, patch_width = shapes["patch_embed.proj.weight"]
    if patch_size != patch_width:
        raise VitportError(
            f"patch_embed.proj.weight has patches of {patch_size}x{patch_width}, but only square patches are supported."
        )

    facts = {
        "embed_dim": embed_dim,
        "in_channels": in_channels,
        "patch_size": patch_size,
        "depth": 1 + max(int(match[1]) for name in shapes if (match := re.match(r"blocks\.(\d+)\.", name))),
        **shown_options(shapes),
        "register_tokens": shapes["reg_token"][1] if "reg_token" in shapes else 0,
        "final_norm": "tokens" if "norm.weight" in shapes else "pooled" if "fc_norm.weight" in shapes else "none",
        "num_classes": shapes["head.weight"][0] if "head.weight" in shapes else 0,
        "representation_size": shapes["pre_logits.fc.weight"][0] if "pre_logits.fc.weight" in shapes else None,
        "relative_hidden_dim": shapes[_NETWORK][0] if _NETWORK in shapes else None,
    }
    for name in ("blocks.0.attn.q_norm.weight", "blocks.0.q_norm.weight"):
        if name in shapes:
            facts["num_heads"] = embed_dim // (shapes[name][0] * (2 if facts["differential"] else 1))
    if parallel:
        facts["block"] = "parallel"
    if branches:
        facts |= {"block": "branched", "branches": branches}
    if facts["norm_bias"]:
        facts["norm"] = "layernorm"
    if not parallel:
        biased = any(re.fullmatch(r"blocks\.\d+\.mlp\.fc.+\.bias", name) for name in shapes)
        facts["mlp_bias"] = None if biased is facts["proj_bias"] else biased
    return facts


def facts_from_shapes(shapes: Shapes, told: Mapping[str, Any]) -> dict[str, Any]:
    """The config fields that canonical names and shapes decide; those in ``NEVER_GUESSED`` only in special cases.

    Args:
        shapes: canonical name → shape.
        told: config fields known from elsewhere. They decide only where shapes leave several answers: for grids that
            are not square, and for initial values.

    Raises:
        VitportError: if the tensors are not a ViT's, or the position table fits no known grid.
    """
    facts = sizes_from_shapes(shapes)
    shapes, _ = _of_one_branch(shapes)
    return (
        facts
        | _layer_scale(shapes, told)
        | _mlp(shapes, facts["embed_dim"], told)
        | _pool(shapes, _hidden_width(shapes), facts, told)
        | _grid(shapes, facts, told)
        | _rotary(shapes, told)
    )


def _of_one_branch(shapes: Shapes) -> tuple[Shapes, int]:
    """The first branch of each block under the names of other blocks, and the number of branches, 0 without any."""
    own, branches = {}, 0
    for name, shape in shapes.items():
        if (match := _BRANCH.fullmatch(name)) is None:
            own[name] = shape
            continue
        block, group, branch, part, rest = match.groups()
        branches = max(branches, int(branch) + 1)
        if branch == "0":
            place = 1 if group == "attns" else 2
            own[f"{block}.{part}{place if part in ('norm', 'ls') else ''}.{rest}"] = shape
    return own, branches


_BRANCH = re.compile(r"(blocks\.\d+)\.(attns|ffns)\.(\d+)\.([a-z]+)\.(.+)")


def usual(values: Mapping[str, Any]) -> dict[str, Any]:
    """Config fields that need not be stated because they have no effect: none."""
    del values
    return {}


def check_named(name: str, named: ViTConfig, config: ViTConfig, any_head: bool) -> None:
    """The sizes of a Vision Transformer are all that its name says and tensors show, but for classifiers of timm that
    hold an encoder which has a name of its own: no tensor shows what stands between it and the head.

    Raises:
        VitportError: if the file is such a classifier's.
    """
    del named
    classifier = name.removesuffix(ENCODER)
    if classifier != name and config.num_classes and not any_head:
        raise VitportError(
            f"{name} has no head, but the file holds one of {config.num_classes} classes, as {classifier}'s, which is "
            f"not supported: {UNSUPPORTED[classifier]}. Drop the head with --head drop (head='drop', or num_classes=0 "
            "in create_model)."
        )


def _layer_scale(shapes: Shapes, told: Mapping[str, Any]) -> dict[str, Any]:
    if not any(name.endswith(("ls1.gamma", "ls2.gamma", ".ls.gamma")) for name in shapes):
        return {"layer_scale": None}
    return (
        {} if told.get("layer_scale") is not None else {"layer_scale": 1e-5}
    )  # shapes leave only the initial value open


def _hidden_width(shapes: Shapes) -> int:
    """Of the MLPs in blocks."""
    names = ("blocks.0.mlp.fc2.weight", "blocks.0.mlp_out_proj.weight")
    return shapes[next(name for name in names if name in shapes)][1]


def _mlp(shapes: Shapes, embed_dim: int, told: Mapping[str, Any]) -> dict[str, Any]:
    hidden = _hidden_width(shapes)
    if "blocks.0.mlp.fc1_g.weight" in shapes:
        kind = "swiglu"
    else:
        kind = "swiglu_packed" if shapes.get("blocks.0.mlp.fc1.weight", (0,))[0] == 2 * hidden else "plain"
    ratio = told.get("mlp_ratio", 4.0)
    width = (
        {"mlp_ratio": ratio, "mlp_hidden_dim": None} if int(embed_dim * ratio) == hidden else {"mlp_hidden_dim": hidden}
    )
    return {"mlp": kind, **width}


def _pool(shapes: Shapes, hidden: int, facts: Mapping[str, Any], told: Mapping[str, Any]) -> dict[str, Any]:
    if "attn_pool.latent" in shapes:
        width = shapes.get("attn_pool.mlp.fc1.weight", (hidden,))[0]
        return {"pool": "map", "map_hidden_dim": None if width == hidden else width}
    if not facts["class_token"]:
        return {"pool": "avg"}
    if facts["distilled"]:
        return {"pool": "token"}
    if facts["final_norm"] == "pooled" and told.get("final_norm") != "pooled":
        return {"pool": "avg"}  # code that names it fc_norm (MAE, timm) applies it to the mean of the patches
    first = shapes.get("pre_logits.fc.weight", shapes.get("head.weight"))
    return {"pool": "token_avg"} if first is not None and first[-1] == 2 * facts["embed_dim"] else {}


def _offsets(shapes: Shapes, facts: Mapping[str, Any], told: Mapping[str, Any]) -> dict[str, Any]:
    """The image size from the biases by relative position: a square, unless another one is told that fits."""
    if _TABLE not in shapes:
        return {}
    rows, patch, class_token = shapes[_TABLE][0], facts["patch_size"], facts["class_token"]
    if "image_size" in told:
        size = height_and_width(told["image_size"], "image_size")
        if min(size) >= patch and count_offsets((size[0] // patch, size[1] // patch), class_token) == rows:
            return {"image_size": size}
    side = (math.isqrt(max(rows - CLASS_ROWS * class_token, 0)) + 1) // 2
    if count_offsets((side, side), class_token) != rows:
        raise UnstatedError(
            f"{_TABLE} has {rows} rows, which fit neither a square grid nor a known image size: state the height and "
            "width that the weights were trained at (--image-size 64x32, facts={'image_size': …} or a ViTConfig).",
            ["image_size"],
        )
    return {"image_size": (side * patch, side * patch)}


def _rotary(shapes: Shapes, told: Mapping[str, Any]) -> dict[str, Any]:
    """Learned frequencies show their kind. Others show nothing: models that are likely to have them must say so."""
    if "blocks.0.attn.rotary.freqs" in shapes:
        return {} if told.get("rotary") is not None else {"rotary": MixedRotary()}
    told_by_table = "pos_embed" in shapes or _TABLE in shapes or _NETWORK in shapes
    if "rotary" not in told and (not told_by_table or ("blocks.0.attn.q_bias" in shapes and _TABLE not in shapes)):
        why = "has no position table" if "pos_embed" not in shapes else "has biases of queries and values alone"
        raise UnstatedError(
            f"The file {why}, as models with rotary positions, whose angles no tensor holds: name the model (--model, "
            "or the first argument of create_model), or state them (facts={'rotary': …}, None for none, or --config "
            "FILE).",
            ["rotary"],
        )
    return {}


def _grid(shapes: Shapes, facts: Mapping[str, Any], told: Mapping[str, Any]) -> dict[str, Any]:
    """The image size and the kind of position table, both from the number of rows in the table."""
    if "pos_embed" not in shapes:
        return {"pos_embed": "none", **_offsets(shapes, facts, told)}
    rows, patch = shapes["pos_embed"][1], facts["patch_size"]
    tokens = int(facts["class_token"]) + int(facts["distilled"])
    prefix = {"prefix": tokens, "patch": 0, "all": tokens + facts["register_tokens"]}
    kinds = [told["pos_embed"]] if told.get("pos_embed") in prefix else []
    kinds += [kind for kind in prefix if kind not in kinds]
    if "image_size" in told:
        size = (told["image_size"],) * 2 if isinstance(told["image_size"], int) else tuple(told["image_size"])
        for kind in kinds:
            if rows - prefix[kind] == (size[0] // patch) * (size[1] // patch):
                return {"pos_embed": kind, "image_size": size}
    if told.get("pos_embed") in prefix:
        kinds = kinds[:1]  # another kind may be square by chance: nine rows are 3×3, or a class row and 2×4
    square = {kind: math.isqrt(rows - prefix[kind]) for kind in kinds
              if rows > prefix[kind] and math.isqrt(rows - prefix[kind]) ** 2 == rows - prefix[kind]}  # fmt: skip
    if not square:
        raise UnstatedError(
            f"pos_embed has {rows} rows, which fit neither a square grid after {tokens} tokens nor a known image size: "
            "state the height and width that the weights were trained at (--image-size 64x32, facts={'image_size': …} "
            "or a ViTConfig).",
            ["image_size"],
        )
    kind = next(iter(square))
    if "pos_embed" not in told and len({prefix[kind] for kind in square}) > 1:
        raise UnstatedError(
            f"pos_embed has {rows} rows, which could be {' or '.join(square)}: "
            "name the model, or state it (--pos-embed, facts={'pos_embed': …} or a ViTConfig).",
            ["pos_embed"],
        )
    side = square[kind] * patch
    return {"pos_embed": kind, "image_size": (side, side)}
