"""Where the time goes, operation by operation: ``python -m benchmarks.operations training|inference [--model NAME]``.

A trace of the trainer's own step, or of the jitted model, gives the milliseconds of each operation of the compiled
program, summed over all that are alike: of one kind, result and place in the model. Operations run beside each other on
the cores, so that together they take longer than the whole; those with several results are left out. Give the process
huge pages, as the command ``vitport train`` does: ``GLIBC_TUNABLES=glibc.malloc.hugetlb=1``.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import jax
import tyro

from benchmarks.sides_jax import trainer
from benchmarks.subject import Subject
from vit_cli.terminal import print_table, say
from vit_jax.inference import compile_inference

RUNS = 5
_OPERATION = re.compile(r'^\s*(?:ROOT )?%([\w.-]+) = (\w+\[[\d,]*\])\S* .*?op_name="([^"]*)"', re.M)


def main(
    what: tyro.conf.Positional[Literal["training", "inference"]],
    model: str = "vit_small_patch16_224",
    batch: int = 8,
    rows: int = 30,
) -> None:
    """Trace some runs, and print the operations that take longest.

    Args:
        what: a training step with AdamW, or a forward pass.
        model: a registered name.
        batch: images.
        rows: of the table.
    """
    program, run = (_training if what == "training" else _inference)(Subject(model), batch)
    place = _place if what == "training" else _last
    meaning = {name: (shape, place(where)) for name, shape, where in _OPERATION.findall(program)}
    for _ in range(2):
        run()
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        with jax.profiler.trace(folder):
            for _ in range(RUNS):
                run()
            seconds = (time.perf_counter() - start) / RUNS
        (path,) = Path(folder).rglob("*.xplane.pb")
        found, counts = _operations(path, meaning)
    whole = sum(found.values())
    say(f"{what}, {model}, batch {batch}: {seconds * 1e3:.1f} ms while traced; operations together {whole:.1f} ms")
    table = [
        [*kind, f"{counts[kind] / RUNS:.0f}", f"{milliseconds:.1f}", f"{milliseconds / whole:.1%}"]
        for kind, milliseconds in found.most_common(rows)
    ]
    print_table(["operation", "<result", "<from", "times", "ms", "share"], table)


def _training(subject: Subject, batch: int) -> tuple[str, Callable[[], Any]]:
    """The program's text, and one run of it to its end."""
    engine, state, fed = trainer(subject, batch, "auto", False, "float32", "fused")
    program = engine.lower(state, fed).compile().as_text() or ""
    held = [state]

    def run() -> None:
        held[0], _ = engine.step(held[0], fed)
        jax.block_until_ready(held[0])

    return program, run


def _inference(subject: Subject, batch: int) -> tuple[str, Callable[[], Any]]:
    forward = compile_inference(subject.checkpoint(), batch)
    images = forward.place(subject.images(batch))
    program = forward.lower(images).compile().as_text() or ""
    return program, lambda: jax.block_until_ready(forward(images))


def _operations(
    path: Path, meaning: dict[str, tuple[str, str]]
) -> tuple[Counter[tuple[str, str, str]], Counter[tuple[str, str, str]]]:
    """Kind → milliseconds a run, and kind → how many in all runs."""
    found: Counter[tuple[str, str, str]] = Counter()
    counts: Counter[tuple[str, str, str]] = Counter()
    for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
        for line in plane.lines:
            for event in line.events:
                if event.name in meaning:
                    kind = (re.sub(r"[.\d]+$", "", event.name), *meaning[event.name])
                    found[kind] += event.duration_ns / 1e6 / RUNS  # type: ignore[assignment]
                    counts[kind] += 1
    return found, counts


def _place(where: str) -> str:
    """``jit(whole)/transpose(jvp())/dot_general`` → ``backward, dot_general``."""
    steps = where.split("/")
    backward = any("transpose" in step for step in steps[:-1])
    forward = any("jvp" in step for step in steps)
    return f"{'backward' if backward else 'forward' if forward else 'update'}, {_last(where)}"


def _last(where: str) -> str:
    return where.rpartition("/")[2]


if __name__ == "__main__":
    tyro.cli(main)
