"""Runs the examples in docs/ and writes down what they print: ``python -m scripts.doc_examples [PAGE …]``.

An example is a fenced block whose first line begins with ``$``. The commands of a page run one after the
other in a folder of their own, beside the weights that ``WEIGHTS`` makes, which are random and always the same. Lines
between two commands are what the first one printed, and are replaced.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

import conversion
from benchmarks.random_weights import random_params
from conversion.formats import FORMATS
from vit_cli.download import default_cache, fetch_dinov2_onnx
from vit_spec import ViTConfig, get_model

ROOT = Path(__file__).parent.parent
FENCE = re.compile(r"(?<=\n```\n)\$ .*?(?=```\n)", re.DOTALL)


def _params(config: ViTConfig) -> dict[str, np.ndarray]:
    return random_params(config, seed=0, dtype=np.float32)


def _saved(name: str, form: str, **changes: object) -> Callable[[Path], None]:
    """A registered model with random weights, in a format of its own."""

    def make(path: Path) -> None:
        config = get_model(name).config.replace(**changes)
        checkpoint = conversion.Checkpoint.of(config, _params(config), get_model(name).preprocessing)
        conversion.save(checkpoint, path, format=form, activation="keep")

    return make


def _bare(name: str, not_numbers: int = 0) -> Callable[[Path], None]:
    """Tensors in a safetensors file without a record, some values of one of them not a number."""

    def make(path: Path) -> None:
        params = _params(get_model(name).config)
        params["blocks.3.mlp.fc1.weight"][0, :not_numbers] = np.nan
        save_file(params, path)

    return make


def _fetched(path: Path) -> None:
    """The file that the demo fetches."""
    shutil.copy(fetch_dinov2_onnx(default_cache()), path)


def _pickled(name: str) -> Callable[[Path], None]:
    """The same as the originals' training scripts save it."""

    def make(path: Path) -> None:
        tensors = {key: torch.tensor(array) for key, array in _params(get_model(name).config).items()}
        torch.save({"model": tensors, "epoch": 300}, path)

    return make


def _two_towers(path: Path) -> None:
    """An image tower with stacked blocks beside the beginning of a text tower, as SigLIP's files are."""
    config = get_model("vit_tiny_patch16_224").config.replace(
        activation="gelu_tanh", class_token=False, pool="map", num_classes=0, pos_embed="patch"
    )
    table = FORMATS["big-vision-scan"].names.write(conversion.TensorTable.of(_params(config)), config)
    tower = {f"params/img/{name}": array for name, array in table.items()}
    text = {"params/txt/head/bias": np.zeros(3), "params/t": np.array(2.3), "params/b": np.array(-10.0)}
    with path.open("wb") as file:
        np.savez(file, **tower, **text)


GOOGLE = {"activation": "gelu_tanh", "pos_embed_resize": "scipy-zoom"}
WEIGHTS: dict[str, Callable[[Path], None]] = {
    "Ti_16.npz": _saved("vit_tiny_patch16_224", "google", **GOOGLE),
    "siglip.npz": _two_towers,
    "ti.safetensors": _saved("vit_tiny_patch16_224", "timm"),
    "bare.safetensors": _bare("deit_tiny_patch16_224"),
    "nan.safetensors": _bare("deit_tiny_patch16_224", 3),
    "vit_s_focus.onnx": _fetched,
    "deit.pth": _pickled("deit_tiny_distilled_patch16_224"),
    "vit.pth": _pickled("vit_tiny_patch16_224"),
}
"""Name of a file that examples begin from → what makes it."""


def rewrite(page: Path) -> None:
    """Run a page's examples and replace what they print."""
    text = page.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        for name, make in WEIGHTS.items():
            if name in text:
                make(Path(folder) / name)
        rewritten = FENCE.sub(lambda block: "".join(_run(block[0], Path(folder))), text)
    page.write_text(rewritten, encoding="utf-8")


def _run(block: str, folder: Path) -> Iterator[str]:
    for line in block.splitlines():
        if line.startswith("$ "):
            yield f"{line}\n"
            vitport = f"{shlex.quote(sys.executable)} -m vit_cli.main"
            command = line.removeprefix("$ ").replace("vitport", vitport, 1)
            environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "PYTHONWARNINGS": "ignore"}
            done = subprocess.run(
                command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, check=False
            )
            printed = [text.rstrip() for text in (done.stdout + done.stderr).splitlines()]
            yield "".join(f"{text}\n" for text in printed)


def main() -> None:
    """Rewrite the pages that are named, or all."""
    pages = [Path(name) for name in sys.argv[1:]] or sorted(ROOT.glob("docs/**/*.md"))
    for page in pages:
        if "$ vitport" in page.read_text(encoding="utf-8"):
            rewrite(page)


if __name__ == "__main__":
    main()
