"""What a source says of its weights beside the tensors: facts of the model, preprocessing, labels, earlier changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from conversion.config_json import huggingface as huggingface_config
from conversion.config_json import preprocessor
from conversion.config_json import timm as timm_config
from conversion.format import Format, fit_preprocessing
from conversion.identify.recognise import Recognised
from conversion.identify.resolve import SHAPES, Fact
from conversion.source import CHANGED, OWN_RECORD, Source
from vit_spec import Config, Preprocessing, VitportError, config_from_dict, field_values, get_model
from vit_spec.printable import printable


def told_facts(source: Source, recognised: Recognised) -> dict[str, Fact]:
    """What the file says, and which part of it says so; later sources overrule earlier ones."""
    if source.own is not None:
        try:
            config = config_from_dict(_entry(source, "config"))
        except VitportError as error:
            raise VitportError(f"{source.path} has a record of a model that cannot be: {error}") from error
        if config.family != recognised.format.family:
            raise VitportError(
                f"The file's own record says that it is of the family {config.family}, but its tensors are named like "
                f"those of {recognised.format.family}: fetch or write it again."
            )
        return {name: Fact(value, OWN_RECORD) for name, value in field_values(config).items()}
    found = recognised.format
    told = {name: Fact(value, f"the convention of {found.name}") for name, value in found.conventions.items()}
    if found.shape_facts is not None:
        shown = found.shape_facts(recognised.table.shapes)
        told |= {name: Fact(value, SHAPES) for name, value in shown.items()}
    if found.buffer_facts is not None:
        shown = found.buffer_facts(recognised.aside, recognised.table.shapes)
        told |= {name: Fact(value, "the file's buffers") for name, value in shown.items()}
    if source.config_json is not None and found.facts is not None:
        facts = found.facts(source.config_json)
        told |= {name: Fact(value, source.described_by) for name, value in facts.items()}
    return told | {name: Fact(value, f"the {source.container}") for name, value in source.facts.items()}


def stated_preprocessing(
    source: Source, found: Format, model: str | Config | None, config: Config
) -> tuple[Preprocessing, str]:
    """The preprocessing that fits the config, and who says so."""
    if source.own is not None:
        return Preprocessing.from_dict(dict(_entry(source, "preprocessing"))), OWN_RECORD
    beside = source.config_json or {}
    default, origin = found.preprocessing, "the format's family"
    name = model if isinstance(model, str) else timm_config.architecture_name(beside)
    if default is None and name is not None:
        default, origin = get_model(name).preprocessing, f"the model name {name}"
    if default is None:
        default, origin = Preprocessing(), "nowhere, so ImageNet's mean and standard deviation were assumed"
    fitted = fit_preprocessing(default, config)
    if len(fitted.mean) != len(default.mean):
        origin = f"nowhere for {config.in_channels} channels, so mean and standard deviation 0.5 were assumed"
    if beside.get("pretrained_cfg"):
        return fit_preprocessing(timm_config.preprocessing(beside, config.in_channels), config), source.described_by
    if source.preprocessor_json is not None:
        made = preprocessor.preprocessing(source.preprocessor_json, beside, config.in_channels)
        return made, "preprocessor_config.json"
    return fitted, origin


def stated_labels(source: Source, config: Config) -> tuple[str, ...] | None:
    """The names of the classes, if the source gives them.

    Raises:
        VitportError: for names that are no list of strings, or not as many as the head's outputs.
    """
    if source.own is not None:
        labels = source.own.get("labels")
        where = f"the vitport record of {source.path}"
    else:
        beside = source.config_json or {}
        labels = timm_config.labels(beside) or huggingface_config.labels(beside)
        where = source.described_by
    if not labels or not config.num_classes:
        return None
    if not isinstance(labels, (list, tuple)) or not all(isinstance(label, str) for label in labels):
        raise VitportError(f"The labels in {where} are not a list of names: correct them.")
    if len(labels) != config.num_classes:
        raise VitportError(
            f"{where[:1].upper()}{where[1:]} names {len(labels)} classes, but the head has {config.num_classes}: they "
            "belong to different models, so correct the names or fetch the weights again."
        )
    return tuple(labels)


def earlier_changes(source: Source) -> list[str]:
    """The changes of weights in the file's own record, to be passed on to every file made from it."""
    if source.own is None or "source" not in source.own:
        return []
    notes = _entry(source, "source").get("notes", ())
    if not isinstance(notes, (list, tuple)):
        raise VitportError(f"{source.path} has a vitport record whose notes are not a list: convert it again.")
    return [printable(note) for note in notes if str(note).startswith(CHANGED)]


def _entry(source: Source, name: str) -> Mapping[str, Any]:
    entry = (source.own or {}).get(name)
    if not isinstance(entry, Mapping):
        raise VitportError(f"{source.path} has a vitport record without {name!r}: it is damaged, so convert it again.")
    return entry
