"""Runs an exported file in a process that has neither vitport nor the other framework, beside the model itself."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from conversion import Checkpoint
from vit_parity.exported.write import INPUT, Exported, example
from vit_spec import VitportError

LIMIT = 1e-5
"""Of the largest logit: what two orders of float32 sums may differ by."""
_BATCHES = (1, 3)
_BLOCKED = """
import sys
import numpy as np
for name in ("vit_jax", "vit_torch", "vit_spec", "conversion", "flax", {other!r}):
    sys.modules[name] = None
path, data, folder, *batches = sys.argv[1:]
{load}
for batch in batches:
    np.save(f"{{folder}}/out{{batch}}.npy", np.asarray(run(np.load(f"{{folder}}/in{{batch}}.npy"))))
"""
_LOADS = {
    "onnx": ("jax", "import onnxruntime\nsession = onnxruntime.InferenceSession(path)\n"
             f"run = lambda x: session.run(None, {{{INPUT!r}: x}})[0]"),
    "stablehlo": ("torch", "from jax import export\n"
                  "run = export.deserialize(bytearray(open(path, 'rb').read())).call\n"
                  "if data:\n"
                  "    from functools import partial\n"
                  "    from safetensors.numpy import load_file\n"
                  "    run = partial(run, load_file(data))"),
    "pt2": ("jax", "import torch\nmodule = torch.export.load(path).module()\n"
            "run = lambda x: module(torch.from_numpy(x)).detach().numpy()"),
}  # fmt: skip
_WITH = {"onnx": "onnxruntime", "stablehlo": "jax alone", "pt2": "torch alone"}


@dataclass(frozen=True)
class Difference:
    """How far the exported file is from the model."""

    by: str
    """What ran the file."""
    largest: float
    """Of all logits, of the largest in size."""

    @property
    def equal(self) -> bool:
        return self.largest <= LIMIT  # NaN is not


def run_back(exported: Exported, checkpoint: Checkpoint) -> Difference:
    """Compares the file, on batches of 1 and 3, with the other framework's model of the same weights in float32.

    ONNX and torch.export are compared with vit_jax, StableHLO with vit_torch.

    Raises:
        VitportError: if it cannot be run.
    """
    other, load = _LOADS[exported.kind]
    with tempfile.TemporaryDirectory() as folder:
        for batch in _BATCHES:
            np.save(Path(folder, f"in{batch}.npy"), example(exported, batch))
        done = subprocess.run(
            [sys.executable, "-I", "-c", _BLOCKED.format(other=other, load=load), str(exported.path.absolute()),
             "" if exported.data is None else str(exported.data), folder,
             *map(str, _BATCHES)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            *_, last = done.stderr.strip().splitlines() or ["no output"]
            raise VitportError(f"{exported.path} was written, and {_WITH[exported.kind]} cannot run it ({last[:300]}).")
        differences = []
        for batch in _BATCHES:
            found = np.load(Path(folder, f"out{batch}.npy"))
            expected = _logits(exported, checkpoint, example(exported, batch))
            if found.shape != expected.shape:
                raise VitportError(f"{exported.path} gives {found.shape} for a batch of {batch}: expected "
                                   f"{expected.shape}.")  # fmt: skip
            differences.append(np.abs(found - expected).max() / max(float(np.abs(expected).max()), 1e-30))
    return Difference(_WITH[exported.kind], float(np.max(differences)))


def _logits(exported: Exported, checkpoint: Checkpoint, images: np.ndarray) -> np.ndarray:
    """Those of the other framework's model, float32, from normalised images."""
    if exported.raw:
        mean, std = (np.asarray(values, np.float64) for values in
                     (checkpoint.preprocessing.mean, checkpoint.preprocessing.std))  # fmt: skip
        images = ((images / 255 - mean) / std).astype(np.float32)
    elif exported.kind != "stablehlo":
        images = images.transpose(0, 2, 3, 1)
    if exported.kind == "stablehlo":
        import torch

        import vit_torch

        with torch.inference_mode():
            tensor = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
            return vit_torch.create_model(weights=checkpoint).eval()(tensor).numpy()
    import jax

    import vit_jax

    with jax.default_matmul_precision("highest"):
        model = vit_jax.create_model(weights=checkpoint)
        model.eval()
        return np.asarray(model(jax.numpy.asarray(images)))
