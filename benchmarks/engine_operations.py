"""Where other engines' time goes: ``python -m benchmarks.engine_operations onnxruntime|openvino [--model NAME]``.

The milliseconds of each kind of operation in a forward pass, by the engine's own profiler, beside what
``python -m benchmarks.operations inference`` says of ours. Needs the environment of the peers.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tyro

from benchmarks.side import import_library, threads
from benchmarks.sides_engines import Engine, export, openvino_settings
from benchmarks.sides_torch import make_model
from benchmarks.subject import Subject
from vit_cli.terminal import print_table, say

RUNS = 20


def main(engine: tyro.conf.Positional[Engine], model: str = "vit_small_patch16_224", batch: int = 1) -> None:
    """Profile some runs, and print the kinds of operations that take longest.

    Args:
        engine: which one.
        model: a registered name, which timm has too.
        batch: images.
    """
    what = Subject(model)
    images = np.ascontiguousarray(what.images(batch).transpose(0, 3, 1, 2))
    profile = _onnxruntime if engine == "onnxruntime" else _openvino
    with tempfile.TemporaryDirectory() as folder:
        seconds, found = profile(export(make_model("timm", what).eval(), images, Path(folder)), images)
    say(f"{engine}, {model}, batch {batch}: {seconds * 1e3:.1f} ms while profiled")
    whole = sum(found.values())
    print_table(
        ["operation", "ms", "share"],
        [[kind, f"{own * 1e3:.2f}", f"{own / whole:.1%}"] for kind, own in found.most_common(12)],
    )


def _onnxruntime(path: Path, images: np.ndarray) -> tuple[float, Counter[str]]:
    library = import_library("onnxruntime")
    options = library.SessionOptions()
    options.intra_op_num_threads = threads()
    options.enable_profiling = True
    options.profile_file_prefix = str(path.parent / "profile")
    session = library.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    seconds = _seconds(lambda: session.run(None, {name: images}))
    events = json.loads(Path(session.end_profiling()).read_text())
    found: Counter[str] = Counter()
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            found[event["args"]["op_name"]] += event["dur"] / 1e6 / (RUNS + 1)
    return seconds, found


def _openvino(path: Path, images: np.ndarray) -> tuple[float, Counter[str]]:
    library = import_library("openvino")
    core = library.Core()
    compiled = core.compile_model(core.read_model(path), "CPU", {**openvino_settings(), "PERF_COUNT": True})
    request = compiled.create_infer_request()
    seconds = _seconds(lambda: request.infer([images]))
    found: Counter[str] = Counter()
    for event in request.get_profiling_info():  # of the last run
        found[event.node_type] += event.real_time.total_seconds()
    return seconds, found


def _seconds(run: Callable[[], object]) -> float:
    run()
    start = time.perf_counter()
    for _ in range(RUNS):
        run()
    return (time.perf_counter() - start) / RUNS


if __name__ == "__main__":
    tyro.cli(main)
