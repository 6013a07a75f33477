"""``vitport inspect``: what a file of weights holds, and how each fact is known."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from vit_cli.reading import Json, SizedOptions
from vit_cli.terminal import print_table, progress, say, write_json
from vit_spec import count_parameters

if TYPE_CHECKING:
    from conversion import Checkpoint


def inspect(
    path: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PATH")],
    *,
    tensors: bool = False,
    suggest: bool = False,
    as_json: Json = False,
    reading: SizedOptions,
) -> None:
    """Show what weights hold, and how each fact is known.

    Args:
        path: File, folder or work directory of weights.
        tensors: List every tensor with shape and dtype.
        suggest: Print a draft of rules for --rename instead, from names and shapes alone.
        as_json: Print JSON instead of tables.
    """
    if suggest:
        from conversion.containers import open_source
        from conversion.hub import local
        from conversion.renaming.vit.suggest import suggest_rules

        for line in suggest_rules(open_source(local(path), reading.weights_key).table.shapes).splitlines():
            say(line)
        return
    checkpoint = reading.load(path)
    report = _report(checkpoint, tensors)
    if as_json:
        write_json(report)
        return
    dtypes = ", ".join(f"{count} {dtype}" for dtype, count in report["dtypes"].items())
    say(f"{path}: {report['parameters'] / 1e6:.2f} M parameters in {len(checkpoint.params)} tensors ({dtypes})")
    say(f"format {report['format']}, sha256 {report['sha256']}")
    for note in report["notes"]:
        say(f"note: {note}")
    for warning in report["warnings"]:
        say(f"warning: {warning}")
    say("")
    print_table(("config", "<value", "<known from"), [(name, *fact) for name, fact in _facts(checkpoint).items()])
    say("")
    print_table(("preprocessing", "<value"), [(name, _plain(value)) for name, value in report["preprocessing"].items()])
    if tensors:
        say("")
        print_table(
            ("tensor", "<shape", "<dtype"),
            [(row["name"], _plain(row["shape"]), row["dtype"]) for row in report["tensors"]],
        )


def _report(checkpoint: Checkpoint, tensors: bool) -> dict[str, Any]:
    specs = {name: checkpoint.params.spec(name) for name in checkpoint.params}
    report: dict[str, Any] = {
        "path": checkpoint.provenance.source,
        "format": checkpoint.provenance.format,
        "sha256": checkpoint.provenance.sha256,
        "parameters": count_parameters(checkpoint.config),
        "dtypes": dict(Counter(str(dtype) for _, dtype in specs.values())),
        "notes": checkpoint.provenance.notes,
        "warnings": _warnings(checkpoint),
        "config": checkpoint.config.to_dict(),
        "origins": dict(checkpoint.provenance.origins),
        "preprocessing": checkpoint.preprocessing.to_dict(),
        "labels": checkpoint.labels,
    }
    if tensors:
        report["tensors"] = [
            {"name": name, "shape": shape, "dtype": str(dtype)} for name, (shape, dtype) in specs.items()
        ]
    return report


def _facts(checkpoint: Checkpoint) -> dict[str, tuple[str, str]]:
    origins = checkpoint.provenance.origins
    return {
        name: (_plain(value), origins.get(name, "nowhere: the default"))
        for name, value in checkpoint.config.to_dict().items()
    }


def _warnings(checkpoint: Checkpoint) -> list[str]:
    """Values that make complete weights useless: NaN and infinity."""
    from conversion.tensors.finite import count_not_finite, not_finite

    found: list[str] = []
    with progress("Reading") as told:
        for at, (name, array) in enumerate(checkpoint.params.items()):
            told(name, at, len(checkpoint.params))
            if count := count_not_finite(array):
                found.append(not_finite(name, count))
    return found


def _plain(value: Any) -> str:
    if isinstance(value, dict):  # a part with fields of its own
        return ", ".join(_plain(it) if name == "kind" else f"{name} {_plain(it)}" for name, it in _told(value).items())
    return " x ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _told(value: dict[str, Any]) -> dict[str, Any]:
    """The fields that say something; long lists by their ends."""
    long = {name: [it[0], "…", it[-1]] for name, it in value.items() if isinstance(it, list) and len(it) > 4}
    return {name: it for name, it in (value | long).items() if it is not None}
