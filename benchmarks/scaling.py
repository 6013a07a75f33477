"""Writes docs/reports/scaling.md: ``python -m benchmarks.scaling [--output FILE]``.

The tables of times are arithmetic, of ``vit_jax.training.scaling``. What it says devices exchange is compared with
programs that are compiled for 8 and for 64 simulated devices, in processes of their own; some minutes on two cores.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from benchmarks.fleets import KINDS, MODELS, NAMES, fleets
from vit_jax.training.devices.chips import CHIPS
from vit_jax.training.recipe.execution import MeshShape, mesh_words
from vit_jax.training.scaling import Assumptions, Prediction, Step, rank
from vit_spec import Config, ViTConfig, count_parameters, forward_flops

SMALL = ViTConfig(
    image_size=(64, 64), patch_size=8, num_classes=16, embed_dim=128, depth=4, num_heads=8, mlp_hidden_dim=512
)  # fmt: skip


def cases(devices: int) -> list[Step]:
    """Steps that are compiled, in float32, for the CPU backend computes bfloat16 in float32."""

    def step(batch: int, data: int, fsdp: int, tensor: int, **options: Any) -> Step:
        return Step(SMALL, batch, MeshShape(data, fsdp, tensor), "float32", **options)

    if devices == 8:
        return [
            step(64, 8, 1, 1),
            step(64, 1, 8, 1),
            step(8, 1, 8, 1),
            step(64, 1, 8, 1, remat="full"),
            step(64, 1, 8, 1, remat="full", accumulation=2),
            step(64, 2, 4, 1),
            step(64, 1, 1, 8),
            step(64, 1, 1, 8, remat="full"),
            step(64, 2, 2, 2),
        ]
    return [
        step(128, 64, 1, 1),
        step(128, 1, 64, 1),
        step(128, 8, 8, 1, remat="full"),
        step(128, 8, 1, 8),
        step(128, 4, 4, 4),
        step(128, 4, 4, 4, remat="full"),
    ]


def main(
    output: Path = Path("docs/reports/scaling.md"),
    compile_for: Annotated[int | None, tyro.conf.arg(metavar="DEVICES")] = None,
) -> None:
    """Writes the page.

    Args:
        output: Where it goes.
        compile_for: Print as JSON what steps exchange on so many simulated devices, which the process must have, and
            write nothing: the page's own processes are started with this.
    """
    if compile_for is not None:
        from benchmarks.collectives import compare

        for step in cases(compile_for):
            found = compare(step)
            row = {"predicted": found.predicted, "counted": found.counted, "error": found.error}
            sys.stdout.write(json.dumps(row) + "\n")
            sys.stdout.flush()
        return
    compared = {devices: compiled(devices) for devices in (8, 64)}
    output.write_text(page(compared))


def compiled(devices: int) -> list[dict[str, Any]]:
    """What :func:`cases` exchange, each predicted and counted."""
    environment = os.environ | {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_PLATFORMS": "cpu",
    }
    command = [sys.executable, "-m", "benchmarks.scaling", "--compile-for", str(devices)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def page(compared: dict[int, list[dict[str, Any]]]) -> str:
    """The whole of docs/reports/scaling.md."""
    text = (Path(__file__).parent / "scaling.md").read_text()
    assumed = Assumptions()
    values = {
        "jax": importlib.metadata.version("jax"),
        "products": f"{assumed.products:.0%}",
        "bandwidth": f"{assumed.bandwidth:.0%}",
        "memory": f"{assumed.memory:.0%}",
        "chips": chip_table(),
        "models": "\n\n".join(model_section(name, *of) for name, of in MODELS.items()),
        "compared": "\n\n".join(compared_table(devices, rows) for devices, rows in compared.items()),
        "worst": f"{max(row['error'] for rows in compared.values() for row in rows):.1%}",
    }
    for name, value in values.items():
        text = text.replace("{" + name + "}", value)
    return text


def chip_table() -> str:
    """The figures of :mod:`vit_jax.training.devices.chips`."""
    head = ["chip", "bfloat16, TFLOP/s", "HBM, GB", "HBM, GB/s", "domain", "its links, GB/s", "network, GB/s"]
    rows = [
        [
            chip.name,
            f"{chip.flops / 1e12:.0f}",
            f"{chip.memory / 1e9:.0f}",
            f"{chip.memory_bandwidth / 1e9:,.0f}",
            f"{chip.domain} chips",
            f"{chip.ring_bandwidth / 1e9:.0f}" + (f", {chip.rings} axes" if chip.rings > 1 else ""),
            f"{chip.network_bandwidth / 1e9:.4g}",
        ]
        for chip in KINDS
    ]
    return table(head, rows)


def model_section(name: str, model: Config, batch: int) -> str:
    """One model on all chips and numbers of them."""
    head = ["chips", "mesh", "remat", "microbatches", "ms a step", "between", "MFU", "the longest", "HBM, GB",
            "compiled, ms", "MFU", "HBM, GB"]  # fmt: skip
    rows = []
    for devices, chip in fleets():
        found = next(iter(rank(model, batch, devices, chip)), None)
        rows.append([f"{devices:,} {chip.name}", *cells(found), *program_cells(NAMES.get(name), found)])
    title = f"### {name}, {count_parameters(model) / 1e6:,.0f} M parameters"
    told = f"{forward_flops(model) / 1e9:,.1f} GFLOP forward per image, batch {batch:,}."
    return "\n\n".join([title, told, table(head, rows)])


def cells(found: Prediction | None) -> list[str]:
    """One row of a model's table, after the chips."""
    if found is None:
        return ["does not fit", *[""] * 7]
    low, high = found.bounds
    step = found.step
    return [
        f"`{mesh_words(step.mesh)}`",
        {"full": "blocks", "dots": "elementwise"}.get(step.remat, "nothing"),
        str(step.accumulation),
        milliseconds(found.seconds),
        f"{milliseconds(low)} to {milliseconds(high)}",
        f"{found.mfu:.0%}",
        found.limit,
        f"{found.memory / 1e9:.1f}",
    ]


def program_cells(name: str | None, found: Prediction | None) -> list[str]:
    """The same step as docs/reports/accelerators.md has it of the chip's compiler: its time, MFU and memory."""
    from benchmarks.accelerator_programs import programs
    from benchmarks.accelerators import KEPT

    kept = json.loads(KEPT.read_text())
    for program in programs():
        cost = kept.get(program.name)
        if found is None or program.model != name or cost is None or CHIPS[program.chip] != found.chip:
            continue
        if program.step == replace(found.step, model=program.step.model):
            if "memory" not in cost:
                return ["does not fit", "", f"{cost['needs'] / 1e9:.1f}" if "needs" in cost else ""]
            used = cost["memory"]["limit"] - cost["memory"]["left"]
            line = cost["roofline"]
            return [milliseconds(line["step_seconds"]), f"{line['mfu']:.0%}", f"{used / 1e9:.1f}"]
    return [""] * 3


def milliseconds(seconds: float) -> str:
    """In three digits or more."""
    return f"{seconds * 1e3:,.0f}" if seconds >= 0.1 else f"{seconds * 1e3:.3g}"


def compared_table(devices: int, rows: list[dict[str, Any]]) -> str:
    """Predicted and counted bytes of the cases on so many simulated devices."""
    kinds = ("all-gather", "all-reduce", "all-to-all")
    head = ["mesh", "batch", "options"]
    head += [f"{kind}, {what}" for kind in kinds for what in ("predicted", "counted")] + ["other", "apart"]
    lines = []
    for step, row in zip(cases(devices), rows, strict=True):
        options = ["remat"] if step.remat == "full" else []
        options += [f"accumulation {step.accumulation}"] if step.accumulation > 1 else []
        sizes = [f"{row[what].get(kind, 0):,}" for kind in kinds for what in ("predicted", "counted")]
        other = sum(size for kind, size in row["counted"].items() if kind not in kinds)
        lines.append(
            [
                f"`{mesh_words(step.mesh)}`",
                str(step.batch),
                ", ".join(options),
                *sizes,
                f"{other:,}",
                f"{row['error']:.2%}",
            ]
        )
    return f"On {devices} simulated devices:\n\n" + table(head, lines)


def table(head: list[str], rows: list[list[str]]) -> str:
    """In Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    tyro.cli(main)
