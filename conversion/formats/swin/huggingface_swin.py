"""Hugging Face ``SwinModel``, ``SwinForImageClassification`` and ``SwinBackbone``: names on disk, and names in
memory since v5.9. The encoder of ``SwinForMaskedImageModeling`` is read."""

from collections.abc import Mapping
from typing import Any

from conversion.checkpoint import Checkpoint
from conversion.config_json import huggingface_swin
from conversion.config_json.huggingface import ACTIVATIONS
from conversion.containers import huggingface_folder
from conversion.format import Format
from conversion.formats.swin import buffers
from conversion.formats.swin.agreement import one_window, stated_by, unlike_windows, unsupported
from conversion.formats.swin.parts import BLOCK, DECODER, MASK_TOKEN, StageNorms, merging
from conversion.second_reading.swin import SwinPartNames, SwinReading
from conversion.tensors.rules import Rule, joined, module
from conversion.tensors.table import TensorTable
from vit_spec import SwinConfig, VitportError
from vit_spec.swin.windows import windowings

THEIRS = "encoder.layers.{s}.blocks.{b}"
COMMON = (
    Rule("absolute_pos_embed", "embeddings.position_embeddings"),
    *module("patch_embed.proj", "embeddings.patch_embeddings.projection"),
    *module("patch_embed.norm", "embeddings.norm"),
    *merging("encoder.layers.{s}.downsample"),
    *module(f"{BLOCK}.norm1", f"{THEIRS}.layernorm_before"),
    *module(f"{BLOCK}.attn.proj", f"{THEIRS}.attention.output.dense"),
    *module(f"{BLOCK}.norm2", f"{THEIRS}.layernorm_after"),
    *module(f"{BLOCK}.mlp.fc1", f"{THEIRS}.intermediate.dense"),
    *module(f"{BLOCK}.mlp.fc2", f"{THEIRS}.output.dense"),
    *module("norm", "layernorm"),
    *module("head.fc", "classifier"),
)
_TABLE = "relative_position_bias_table"
_ON_DISK = (
    *joined(f"{BLOCK}.attn.qkv", *(f"{THEIRS}.attention.self.{part}" for part in ("query", "key", "value"))),
    Rule(f"{BLOCK}.attn.{_TABLE}", f"{THEIRS}.attention.self.{_TABLE}"),
)
_IN_MEMORY = (
    *joined(f"{BLOCK}.attn.qkv", *(f"{THEIRS}.attention.{part}_proj" for part in "qkv")),
    *module(f"{BLOCK}.attn.proj", f"{THEIRS}.attention.o_proj"),
    *module(f"{BLOCK}.mlp.fc1", f"{THEIRS}.mlp.fc1"),
    *module(f"{BLOCK}.mlp.fc2", f"{THEIRS}.mlp.fc2"),
    Rule(f"{BLOCK}.attn.{_TABLE}", f"{THEIRS}.attention.relative_position_bias.{_TABLE}"),
)
_NORMS = "hidden_states_norms."
SET_ASIDE = buffers.SET_ASIDE | {"embeddings.mask_token": MASK_TOKEN, "decoder.*": DECODER}
PARTS: dict[str, Any] = {
    "patches": ("embeddings.patch_embeddings.projection",), "patch_norm": ("embeddings.norm",),
    "positions": ("embeddings.position_embeddings",), "block": ("encoder.layers.{s}.blocks.{b}",),
    "merge_norm": ("encoder.layers.{s-1}.downsample.norm",),
    "merge": ("encoder.layers.{s-1}.downsample.reduction",), "norm": ("layernorm",), "head": ("classifier",),
    "norm1": ("layernorm_before",), "query": ("attention.self.query", "attention.q_proj"),
    "key": ("attention.self.key", "attention.k_proj"), "value": ("attention.self.value", "attention.v_proj"),
    "out": ("attention.output.dense", "attention.o_proj"), "norm2": ("layernorm_after",),
    "first": ("intermediate.dense", "mlp.fc1"), "second": ("output.dense", "mlp.fc2"),
}  # fmt: skip


def facts(config: Mapping[str, Any]) -> dict[str, Any]:
    """config.json; its ``image_size`` decides nothing in transformers' code, and the windows of the model here.

    Raises:
        VitportError: if maps of that size are smaller than the windows, which transformers itself cannot run.
    """
    told = huggingface_swin.facts(config)
    patch = config.get("patch_size", 4)
    patch = patch[0] if isinstance(patch, list) else patch
    backbone = any("Backbone" in str(name) for name in config.get("architectures") or ())
    (side, _), *_ = told["window_sizes"]
    for stage in range(len(told["window_sizes"])):
        rows, columns = (-(-(pixels // patch) // 2**stage) for pixels in told["image_size"])
        if min(rows, columns) < side and not backbone:
            height, width = told["image_size"]
            raise VitportError(
                f"config.json has image_size={height}x{width}, at which the {rows}x{columns} map of stage {stage} is "
                f"smaller than window_size={side}: transformers cannot run that, so correct image_size."
            )
    return told


def _unused_norm(table: TensorTable, config: Mapping[str, Any]) -> dict[str, str]:
    """The last norm of a backbone, which has one of its own for every map that it gives out."""
    del config
    if not any(name.startswith(_NORMS) for name in table):
        return {}
    names = (name for name in table if name.startswith(("layernorm.", "swin.layernorm.")))
    return dict.fromkeys(names, "a norm that SwinBackbone does not run")


def _rule(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """A backbone always shifts; the other classes do not where a window is as large as its map."""
    return {"window_rule": "never" if any(name.startswith(_NORMS) for name in shapes) else "min"}


def _is_backbone(config: SwinConfig) -> bool:
    if config.num_classes:
        return False
    as_model = one_window(config, stated_by("min", "pad_roll"))
    return bool(config.stage_norms) or as_model is None


def _stated(config: SwinConfig) -> SwinConfig | None:
    """The model of one window; version 1's code has tables of this window in all stages."""
    rule = "never" if _is_backbone(config) else "min"
    found = one_window(config, stated_by(rule, "pad_roll"))
    if found is not None and {it.window for it in windowings(found)} == set(found.window_sizes):
        return found
    return None


def cannot_hold(config: SwinConfig) -> list[str]:
    """One square window, in no stage larger than the map; ``SwinBackbone`` fixes the epsilon of its norms."""
    eps = (1e-5,) if _is_backbone(config) else (config.norm_eps,)
    complaints = unsupported(
        config,
        1,
        activation=ACTIVATIONS,
        absolute_pos_embed=(True, False),
        norm_eps=eps,
        stage_norms=((),) if config.num_classes else (config.stage_norms,),
    )
    why = "config.json states one window_size, and no map may be smaller"
    return complaints + unlike_windows(config, _stated(config), why)


def _config_json(checkpoint: Checkpoint) -> dict[str, Any]:
    config = checkpoint.config
    assert isinstance(config, SwinConfig)
    stated = _stated(config)
    assert stated is not None
    plain = "SwinBackbone" if _is_backbone(config) else "SwinModel"
    architecture = "SwinForImageClassification" if config.num_classes else plain
    return huggingface_swin.model_json(checkpoint, stated, model_type="swin", architecture=architecture)


FORMAT = Format(
    name="huggingface-swin",
    summary="Hugging Face Swin folder",
    family="swin",
    group="huggingface",
    names=StageNorms((*COMMON, *_ON_DISK, *_IN_MEMORY), "hidden_states_norms.stage{s+1}", _is_backbone),
    signature=(
        "embeddings.patch_embeddings.projection.weight",
        (
            f"encoder.layers.0.blocks.0.attention.self.{_TABLE}",
            f"encoder.layers.0.blocks.0.attention.relative_position_bias.{_TABLE}",
        ),
    ),
    before=("huggingface-vit",),
    classes={"swin": ("SwinModel", "SwinForImageClassification", "SwinBackbone", "SwinForMaskedImageModeling")},
    base="swin.",
    set_aside=SET_ASIDE,
    ignored_if=_unused_norm,
    conventions={"pad_order": "pad_roll"},
    facts=facts,
    shape_facts=_rule,
    reader_defaults={"activation": "gelu"},
    writer=huggingface_folder.writer(_config_json, place=huggingface_folder.body_prefix("swin.", "classifier.")),
    cannot_hold=cannot_hold,
    second_reading=SwinReading(
        names=SwinPartNames(
            **PARTS,
            table=(
                "attention.self.relative_position_bias_table",
                "attention.relative_position_bias.relative_position_bias_table",
            ),
            stage_norm=("hidden_states_norms.stage{s+1}",),
        ),
        windows="min",
        pads="pad_roll",
        never_where="norms",
        eps=None,
        activation=None,
        config_json="transformers",
    ),
)
