"""From a path to a :class:`Checkpoint`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from conversion.checkpoint import Checkpoint
from conversion.config_json import huggingface as huggingface_config
from conversion.config_json import timm as timm_config
from conversion.containers.wall import wall
from conversion.described import open_described
from conversion.hub import local
from conversion.identify.angles import with_stated_rotary
from conversion.identify.computed import with_computed
from conversion.identify.contradictions import check_given, check_name, check_sizes, check_told, check_width
from conversion.identify.given import both, given_facts
from conversion.identify.heads import describe, misfits
from conversion.identify.hyperparameters import check_hyperparameters
from conversion.identify.known_class import check_class, check_format, format_by_class
from conversion.identify.order import told_order
from conversion.identify.quantised import check_floats, check_plain
from conversion.identify.recognise import recognise
from conversion.identify.resolve import SHAPES, Fact, resolve_config, surplus_names
from conversion.opening import Opening
from conversion.renaming.recognised import renamed
from conversion.source import Provenance, Source
from conversion.statements import earlier_changes, stated_labels, stated_preprocessing, told_facts
from conversion.tensors.check import check_complete, check_known
from conversion.tensors.table import TensorTable
from vit_spec import (
    Config,
    Stage,
    UnstatedError,
    ViTConfig,
    VitportError,
    get_model,
    parameters,
    remarks,
)
from vit_spec.reading import height_and_width


def load(
    path: str | Path,
    *,
    format: str | None = None,
    model: str | Config | None = None,
    weights_key: str | None = None,
    unreplicate: bool = False,
    config: str | Path | None = None,
    base: str | Path | None = None,
    facts: Mapping[str, Any] | None = None,
    if_unstated: Mapping[str, Any] | None = None,
    need_head: bool = True,
    norm_first: bool | None = None,
    rename: str | Path | None = None,
) -> Checkpoint:
    """Read weights of any known format.

    >>> checkpoint = vitport.load("deit.pth")
    >>> checkpoint.config.embed_dim, checkpoint.params["head.weight"].shape
    (192, (1000, 192))

    Shapes show depth, width, classes, grid and registers. What no shape shows comes from the file itself, else from
    ``model``; it is never guessed. ``params`` of what is returned maps canonical names to NumPy arrays, each read when
    it is asked for.

    Args:
        path: a file or folder, here or in a bucket, or ``hf://owner/name[@revision]``; its content shows its kind.
        format: name of a format or group of formats, instead of the recognised one.
        model: a registered name or a config, for facts that the file does not tell.
        weights_key: the entry to read where a file holds several sets of weights.
        unreplicate: take one of the copies that ``jax.pmap`` keeps for each device, if all of them are equal.
        config: a JSON file that says what the weights are: fields of ``ViTConfig``, or transformers' or timm's
            config.json of a file without one.
        base: the weights that an adapter changes, where its own adapter_config.json names none on this machine.
        facts: fields of ``ViTConfig`` (or timm's names for them) that are true of the weights, such as ``num_heads``;
            refused where they contradict the file.
        if_unstated: fields that count only where nothing else states them.
        need_head: ``False`` sets aside a head that is not one linear layer, which is refused otherwise.
        norm_first: whether blocks normalise the inputs of their layers, for names that do not show it
            (``torch.nn.TransformerEncoder``).
        rename: a file of rules for weights under names of the user's own; see docs/renaming.md.

    Raises:
        VitportError: if there is nothing to read, a fact is stated nowhere, or a tensor is missing, surplus or
            misshapen.
    """
    config, rename = (None if it is None else local(it) for it in (config, rename))
    opening = Opening(format, weights_key, unreplicate, config, base)
    source, described = open_described(local(path), opening)
    given = both(described, given_facts(facts or {}))
    understood = partial(_understood, source, str(path), opening, model, need_head, norm_first, rename)
    with wall(path, "describes its model in names, shapes or values that make no sense"):
        return _with_unstated(understood, given, if_unstated or {})


def _with_unstated(
    understood: Callable[[Mapping[str, Any]], Checkpoint], given: Mapping[str, Any], if_unstated: Mapping[str, Any]
) -> Checkpoint:
    """The checkpoint by the facts that are given, and by others where nothing else states them."""
    try:
        found = understood(given)
    except UnstatedError as error:
        more = {name: value for name, value in if_unstated.items() if name in error.fields and name not in given}
        if not more:
            raise
        return _with_unstated(understood, {**given, **more}, if_unstated)
    origins, config = found.provenance.origins, found.config
    shapes_alone = origins.get("image_size") == SHAPES == origins.get("pos_embed")
    is_open = isinstance(config, ViTConfig) and config.num_prefix_tokens and config.pos_embed == "patch"
    if "image_size" in if_unstated and shapes_alone and is_open:
        # 9 rows are 3x3 patches, or a class token and 4x2, if that is the size that is spoken of.
        with contextlib.suppress(VitportError):
            return understood({**given, "image_size": height_and_width(if_unstated["image_size"], "image_size")})
    return found


def _understood(
    source: Source,
    path: str,
    opening: Opening,
    model: str | Config | None,
    need_head: bool,
    norm_first: bool | None,
    rename: str | Path | None,
    given: Mapping[str, Any],
) -> Checkpoint:
    named, named_by = _named(model)
    beside = source.config_json or {}
    if (architecture := timm_config.architecture(beside, source.described_by)) is not None:
        if isinstance(model, str) and get_model(model).name != timm_config.architecture_name(beside):
            raise VitportError(
                f"{path} is a {timm_config.architecture_name(beside)} by {source.described_by}, but the model named is "
                f"{model}: leave out the name (--model), or correct what is wrong."
            )
        named, named_by = architecture if model is None or isinstance(model, str) else (named, named_by)
    if source.own is None and rename is None:
        check_class(beside)
    check_plain(source.table, beside)
    if rename is None:
        forced = opening.format or source.format or format_by_class(beside)
        found = recognise(source.table, forced, source.under, opening.unreplicate)
    else:
        found = renamed(source.table, rename)
    for name in found.filled:  # a bias that is there, and set aside
        if any(name in note.replace(",", " ").split() for note in source.notes):
            dotted = name.replace("/", ".")
            raise VitportError(f"{dotted} (in the file: {name}) holds no numbers: fetch or write the file again.")
    if source.own is not None and found.filled:
        raise VitportError(
            f"{', '.join(found.filled)} is missing, which vitport wrote: the file is incomplete, so fetch or "
            "write it again."
        )
    if source.own is None:
        check_format(beside, found.format)
    if found.format.ignored_if is not None:
        found = found.without(found.format.ignored_if(found.table, beside))
    if found.unread_head and need_head:
        raise VitportError(
            f"The head is {describe(found.table, found.unread_head)}, and no config can hold it: drop it with --head "
            "drop (head='drop', or num_classes=0 in create_model), and apply it to the features yourself."
        )
    if not need_head:
        found = replace(found, unread_head=found.unread_head or misfits(found.table, found.format))
    found = found.without_strange_head()
    table, unknown = found.format.names.read(found.table)
    check_floats(table)
    stated = timm_config.facts(beside, source.described_by)
    told = told_facts(source, found) | {name: Fact(value, source.described_by) for name, value in stated.items()}
    told |= told_order(found.format, norm_first, given.get("block", told["block"].value if "block" in told else None))
    if isinstance(model, str):
        check_sizes(model, found.format.family, table.shapes)
    table = with_computed(found.format, table, told, given, named)
    if "rotary" in source.facts:
        told = with_stated_rotary(told, table.shapes, given, named, named_by)
    try:
        config, origins = resolve_config(found.format.family, table.shapes, told, named, named_by, given)
    except UnstatedError as error:
        check_known(surplus_names(error, found.format.family, table.shapes, told, given), found.format.name)
        raise
    said = set(stated) - timm_config.MAY_DIFFER or huggingface_config.stated_fields(beside)
    check_told({name: fact for name, fact in told.items() if source.own is not None or name in said}, config)
    if source.own is None and not stated:
        check_width(beside, config)
    if isinstance(model, str):
        check_name(model, told, config, need_head)
        check_hyperparameters(source.options, config, origins)
    elif model is not None:
        check_given(model, config)
    check_complete(table.shapes, config, surplus=unknown, foreign_name=found.format.names.foreign_name)
    preprocessing, preprocessing_by = stated_preprocessing(source, found.format, model, config)
    notes = (
        f"{found.format.summary}, packed as {source.container}",
        *source.notes,
        *found.notes,
        *(found.format.remarks(found.table) if found.format.remarks is not None else ()),
        *_untrained(table, config),
        *remarks(config),
        *timm_config.remarks(beside),
        f"preprocessing from {preprocessing_by}",
        *earlier_changes(source),
    )
    provenance = Provenance(found.format.name, path, source.files, origins, notes)
    return Checkpoint(config, preprocessing, table, stated_labels(source, config), provenance, source.several_labels)


def _untrained(table: TensorTable, config: Config) -> list[str]:
    """Heads of zeros, as in Google's first ImageNet-21k weights and at the start of fine-tuning."""
    heads = [it.name for it in parameters(config) if it.stage is Stage.CLASSIFIER and it.is_kernel]
    return [f"{name} is zero throughout: the file holds no trained head" for name in heads if not table[name].any()]


def _named(model: str | Config | None) -> tuple[Config | None, str]:
    if isinstance(model, str):
        return get_model(model).config, f"the model name {model}"
    return model, "the config given"
