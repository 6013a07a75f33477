"""Writes docs/reports/sweep.md and two charts: ``python -m benchmarks.lab [FOLDER]``; the default is docs/reports.

ViT-Ti/16 with random weights, two images of standard normal numbers; training at 64 pixels and four blocks deep. It
runs what ``vitport sweep``, ``compare --figure`` and ``steps --figure`` run, and says what each took.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.random_weights import random_params
from conversion import Checkpoint
from vit_cli.sweep import HEADERS, cells
from vit_parity import compare_captures
from vit_parity.comparison import depth_of
from vit_parity.endpoints import parse_endpoint, run_endpoint
from vit_parity.figure import write_drift, write_growth
from vit_parity.replay import ReplayedModel, float64_params
from vit_parity.report import Extras
from vit_parity.sweep import Result, one_at_a_time, sweep
from vit_parity.training import compare_training, random_batches
from vit_parity.truth import truth_of
from vit_spec import get_model

NAME = "vit_tiny_patch16_224"
BATCH, STEPS = 2, 20
PAGE = """# One model, every setting

`vitport sweep WEIGHTS` runs a model in each dtype, precision of products, attention kernel, compiled or not, with all
threads or one, each changed alone (`--all`: every combination), and measures

- **error**: relative L2 distance of the output from float64,
- **alone**: the largest such distance between an image's output in the batch and alone; 0 is bit for bit,
- **moved**: the same between two positions in the batch,
- **repeats**: whether a second run gives the same bits.

`precision` is `torch.set_float32_matmul_precision` (`high` allows TensorFloat-32, `medium` bfloat16) and
`jax.default_matmul_precision`; a CPU may treat them alike. `fused` is `attend_fused` of either package, in PyTorch
its `scaled_dot_product_attention`. A case for which the framework has no kernel is reported as refused. `--json`
prints an object with `schema` (1), `weights`, `batch`, `seed` and `cases`: the settings, `error`, `alone`, `moved`,
`repeats` and `refused` (the framework's message).

{name} with random weights, {batch} images of standard normal numbers, {versions},
{machine}; written by `python -m benchmarks.lab`.

"""


def main() -> None:
    """Everything, with the seconds that each part took."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/reports")
    checkpoint = random_checkpoint()
    images = np.random.default_rng(0).standard_normal((BATCH, *checkpoint.config.image_size, 3), np.float32)
    begin = time.perf_counter()
    (folder / "sweep.md").write_text(page(sweep(checkpoint, images, list(one_at_a_time()))), encoding="utf-8")
    begin = took("sweep", begin)
    draw_errors(checkpoint, images[:1], folder / "error_growth.png")
    begin = took("error_growth", begin)
    draw_training(folder / "training_growth.png")
    took("training_growth", begin)


def draw_training(path: Path) -> None:
    """Both optimizers in float32 and float64, and in words how far apart they end."""
    small = random_checkpoint(image_size=64, depth=4)
    batches = random_batches(small.config, STEPS)
    runs = {
        f"{optimizer}, {dtype}": compare_training(small, batches, optimizer, dtype)
        for optimizer in ("adamw", "sgd")
        for dtype in ("float32", "float64")
    }
    write_drift(runs, path)
    for name, steps in runs.items():
        first, last = steps[0], steps[-1]
        losses = f"loss {first.loss_torch:.3f} to {last.loss_torch:.3f}"
        say(f"{name}: {first.distance:.1e} after 1 step, {last.distance:.1e} after {STEPS}; {losses}")


def random_checkpoint(**changes: Any) -> Checkpoint:
    """Random weights of order 1 that leave no part of the model idle."""
    model = get_model(NAME)
    config = model.config.replace(**changes)
    return Checkpoint.of(config, random_params(config, 0, np.float32), model.preprocessing)


def draw_errors(checkpoint: Checkpoint, images: np.ndarray, path: Path) -> None:
    """Both frameworks in three dtypes against float64."""
    truth = truth_of(checkpoint, images)
    model = ReplayedModel(checkpoint.config, float64_params(checkpoint.params), images)
    a, b = (run_endpoint(parse_endpoint(f"{kind}:x"), checkpoint, images, "float32") for kind in ("torch", "jax"))
    others = [run_endpoint(parse_endpoint("jax:x"), checkpoint, images, dtype) for dtype in ("bfloat16", "float16")]
    depths = [depth_of(run, truth, model) for run in others]
    write_growth(compare_captures(a, b, truth=truth, model=model), path, Extras(model=model, others=depths))


def page(results: list[Result]) -> str:
    """The whole of docs/reports/sweep.md."""
    versions = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in ("torch", "jax", "numpy"))
    machine = f"{platform.machine()} with {os.cpu_count()} cores"
    table = ["| " + " | ".join(HEADERS) + " |", "|---" * len(HEADERS) + "|"]
    table += ["| " + " | ".join(cells(result)) + " |" for result in results]
    refused = [f"- {' '.join(cells(result)[:4])}: {result.refused}" for result in results if result.refused]
    told = ["", "Refused:", "", *refused] if refused else []
    head = PAGE.format(name=NAME, batch=BATCH, versions=versions, machine=machine)
    return head + "\n".join([*table, *told]) + "\n"


def took(what: str, begin: float) -> float:
    now = time.perf_counter()
    say(f"{what}: {now - begin:.0f} s")
    return now


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    main()
