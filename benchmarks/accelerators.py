"""Steps compiled for accelerators that are not here: ``python -m benchmarks.accelerators [PATTERN …]``.

Needs the extras ``aot-tpu`` and ``aot-cuda``. Each program takes one to some minutes; what it costs is kept in
accelerators.json, from which docs/reports/accelerators.md is written.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from benchmarks.accelerator_programs import Program, programs
from benchmarks.fleets import config_of
from benchmarks.scaling import table
from vit_jax.training.recipe.execution import mesh_words
from vit_spec import Preprocessing, VitportError, list_models

if TYPE_CHECKING:
    from vit_jax.training.run.model import RunModel

KEPT = Path(__file__).parent / "accelerators.json"
HEAD = [
    "model", "chips", "batch", "mesh", "options", "state", "temporaries", "left", "predicted", "collectives", "MB",
    "predicted", "compute", "memory", "links", "ms a step", "MFU",
]  # fmt: skip
APART = 0.02
"""Share of its memory by which a program may differ from the one that is kept."""


def main(patterns: tyro.conf.Positional[tuple[str, ...]] = (), *, check: bool = False, missing: bool = False) -> int:
    """Compile the programs, keep what they cost, and write the page.

    Args:
        patterns: Of names, such as 'vit_small* v5e*'; none: all.
        check: Keep nothing, and fail where a program differs from the one that is kept.
        missing: Only those of which nothing is kept.
    """
    kept: dict[str, Any] = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    failed = 0
    for program in programs():
        chosen = not patterns or any(fnmatch(program.name, pattern) for pattern in patterns)
        if not chosen or (missing and program.name in kept):
            continue
        sys.stderr.write(f"{program.name}\n")
        found = compiled(program)
        if not check:
            kept[program.name] = found
            KEPT.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
            Path("docs/reports/accelerators.md").write_text(page(kept))
        elif problem := difference(found, kept.get(program.name)):
            failed += 1
            sys.stderr.write(f"  {problem}\n")
    return 1 if failed else 0


def compiled(program: Program) -> dict[str, Any]:
    """What it costs, as ``vitport train --dry-run --on`` says in JSON; or what it needs where it does not fit."""
    from vit_jax.training.ahead.compile import TooLargeError, compile_ahead
    from vit_jax.training.ahead.report import values
    from vit_jax.training.ahead.roofline import roofline
    from vit_jax.training.ahead.topology import describe

    topology = describe(program.topology)
    try:
        found = compile_ahead(program.options, topology, program.classes, chosen=_unnamed(program))
    except TooLargeError as error:
        return {"needs": error.used, "limit": error.limit}
    except VitportError as error:
        return {"refused": str(error)}
    return values(found, roofline(found))


def _unnamed(program: Program) -> RunModel | None:
    """The model, if it is no registered one."""
    from vit_jax.training.run.model import RunModel

    if program.model in {model.name for model in list_models()}:
        return None
    config = config_of(program.model)
    return RunModel(config, Preprocessing(size=config.image_size), None)


def difference(found: dict[str, Any], kept: dict[str, Any] | None) -> str | None:
    """What is wrong with a program beside the one that is kept."""
    if kept is None:
        return "is not in accelerators.json: run without --check"
    if _outcome(found) != _outcome(kept):
        return f"{_outcome(found)}, and it was: {_outcome(kept)}"
    own, other = _used(found), _used(kept)
    if abs(own - other) > APART * other:
        return f"takes {own / 1e9:.2f} GB, and it took {other / 1e9:.2f} GB"
    return None


def _outcome(found: dict[str, Any]) -> str:
    return found.get("refused", "does not fit" if "needs" in found else "compiles")


def _used(found: dict[str, Any]) -> float:
    if "memory" not in found:
        return found.get("needs", 0.0)
    return found["memory"]["limit"] - found["memory"]["left"]


def _exchanged(found: dict[str, Any]) -> float:
    return sum(each["bytes"] for each in found["collectives"])


def page(kept: dict[str, Any]) -> str:
    """The whole of docs/reports/accelerators.md."""
    text = (Path(__file__).parent / "accelerators.md").read_text()
    made = [(program, kept[program.name]) for program in programs() if program.name in kept]
    rows = [list(_row(program, found)) for program, found in made]
    fits = [(program, found) for program, found in made if "memory" in found]
    near = [abs(program.predicted / _used(found) - 1) <= 0.1 for program, found in fits]
    alike = [abs(program.exchanged / _exchanged(found) - 1) <= 0.05 for program, found in fits]
    counts = {
        "programs": table(HEAD, rows), "count": str(len(rows)), "fits": str(len(fits)), "near": str(sum(near)),
        "alike": str(sum(alike)), "both": str(sum(map(all, zip(near, alike, strict=True)))),
    }  # fmt: skip
    for name, value in counts.items():
        text = text.replace("{" + name + "}", value)
    return text


def _row(program: Program, found: dict[str, Any]) -> Iterator[str]:
    yield from (
        program.model,
        program.topology,
        f"{program.batch:,}",
        f"`{mesh_words(program.mesh)}`",
        ", ".join(program.words),
    )
    if "memory" not in found:
        needs = f"**does not fit: needs {found['needs'] / 1e9:.1f} GB**" if "needs" in found else found["refused"]
        predicted = f"{program.predicted / 1e9:.2f}"
        yield from (needs, "", "", predicted, *[""] * 8)
        return
    memory, line = found["memory"], found["roofline"]
    yield from (f"{memory[name] / 1e9:.2f}" for name in ("state", "temporaries", "left"))
    yield f"{program.predicted / 1e9:.2f} ({program.predicted / _used(found) - 1:+.0%})"
    yield "; ".join(_words(each) for each in found["collectives"][:4])
    exchanged, expected = _exchanged(found), program.exchanged
    yield f"{exchanged / 1e6:,.0f}"
    yield f"{expected / 1e6:,.0f} ({expected / exchanged - 1:+.0%})"
    yield from (_number(line[f"{name}_seconds"]) for name in ("compute", "memory", "links", "step"))
    yield f"{line['mfu']:.0%}"


def _words(link: dict[str, Any]) -> str:
    how = " beside" if link["asynchronous"] else ""
    return f"{link['count']} {link['kind']} {'+'.join(link['axes'])}{how} ({link['bytes'] / 1e6:,.0f} MB)"


def _number(seconds: float) -> str:
    return f"{seconds * 1e3:,.0f}" if seconds >= 0.1 else f"{seconds * 1e3:.3g}"


if __name__ == "__main__":
    from vit_jax.training.ahead.topology import prepare_environment

    prepare_environment()
    sys.exit(tyro.cli(main))
