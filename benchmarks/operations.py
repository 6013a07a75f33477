"""Where the time of a training step goes, operation by operation: ``python -m benchmarks.operations [--model NAME]``.

A trace of the trainer's own step gives the milliseconds of each operation of the compiled program, summed over all that
are alike: of one kind, result and place in the model. Operations run beside each other on the cores, so that together
they take longer than the step; those with several results are left out. Give the process huge pages, as the command
``vitport train`` does: ``GLIBC_TUNABLES=glibc.malloc.hugetlb=1``.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections import Counter
from pathlib import Path

import jax
import tyro

from benchmarks.sides_jax import trainer
from benchmarks.subject import Subject
from vit_cli.terminal import print_table, say

STEPS = 5
_OPERATION = re.compile(r'^\s*(?:ROOT )?%([\w.-]+) = (\w+\[[\d,]*\])\S* .*?op_name="([^"]*)"', re.M)


def main(model: str = "vit_small_patch16_224", batch: int = 8, rows: int = 30) -> None:
    """Trace some steps, and print the operations that take longest.

    Args:
        model: a registered name.
        batch: pictures.
        rows: of the table.
    """
    engine, state, fed = trainer(Subject(model), batch, "none", False, "float32", "fused")
    assert engine.lower is not None  # jit's has it
    program = engine.lower(state, fed).compile().as_text() or ""
    meaning = {name: (shape, _place(where)) for name, shape, where in _OPERATION.findall(program)}
    for _ in range(2):
        state, _ = engine.step(state, fed)
    jax.block_until_ready(state)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        with jax.profiler.trace(folder):
            for _ in range(STEPS):
                state, _ = engine.step(state, fed)
                jax.block_until_ready(state)
            seconds = (time.perf_counter() - start) / STEPS
        (path,) = Path(folder).rglob("*.xplane.pb")
        found, counts = _operations(path, meaning)
    whole = sum(found.values())
    say(f"{model}, batch {batch}: {seconds * 1e3:.0f} ms a step while traced; operations together {whole:.0f} ms")
    table = [
        [*kind, f"{counts[kind] / STEPS:.0f}", f"{milliseconds:.1f}", f"{milliseconds / whole:.1%}"]
        for kind, milliseconds in found.most_common(rows)
    ]
    print_table(["operation", "<result", "<from", "a step", "ms", "share"], table)


def _operations(
    path: Path, meaning: dict[str, tuple[str, str]]
) -> tuple[Counter[tuple[str, str, str]], Counter[tuple[str, str, str]]]:
    """Kind → milliseconds a step, and kind → how many in all steps."""
    found: Counter[tuple[str, str, str]] = Counter()
    counts: Counter[tuple[str, str, str]] = Counter()
    for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
        for line in plane.lines:
            for event in line.events:
                if event.name in meaning:
                    kind = (re.sub(r"[.\d]+$", "", event.name), *meaning[event.name])
                    found[kind] += event.duration_ns / 1e6 / STEPS  # type: ignore[assignment]
                    counts[kind] += 1
    return found, counts


def _place(where: str) -> str:
    """``jit(whole)/transpose(jvp())/dot_general`` → ``backward, dot_general``."""
    steps = where.split("/")
    backward = any("transpose" in step for step in steps[:-1])
    forward = any("jvp" in step for step in steps)
    return f"{'backward' if backward else 'forward' if forward else 'update'}, {steps[-1]}"


if __name__ == "__main__":
    tyro.cli(main)
