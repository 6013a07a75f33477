"""What ``vitport compare`` costs on ViT-B/16 with random weights: prints seconds and peak memory.

python -m benchmarks.compare_cost [MODEL]
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import conversion
from conversion import Checkpoint
from vit_spec import get_model, parameters


def main() -> None:
    """Write the weights, run the command in its own process, and print what it took."""
    name = sys.argv[1] if len(sys.argv) > 1 else "vit_base_patch16_224"
    model = get_model(name)
    rng = np.random.default_rng(0)
    params = {
        parameter.name: (rng.standard_normal(parameter.shape) / max(parameter.shape[-1], 1) ** 0.5).astype(np.float32)
        for parameter in parameters(model.config)
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.safetensors"
        conversion.save(Checkpoint.of(model.config, params, model.preprocessing), path, format="timm")
        begin = time.perf_counter()
        command = [sys.executable, "-m", "vit_cli.main", "compare", str(path), "--all"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds = time.perf_counter() - begin
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    peak, cpu = used.ru_maxrss / 2**20, used.ru_utime + used.ru_stime
    layers = sum("|" in line for line in done.stdout.splitlines()) - 1
    cores = f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    sys.stdout.write(
        f"{name}: {layers} activations, both sides: {seconds:.0f} s ({cpu:.0f} s of CPU), {peak:.1f} GiB; {cores}\n"
    )


if __name__ == "__main__":
    main()
