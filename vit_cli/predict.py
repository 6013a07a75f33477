"""``vitport predict``: the classes that a model sees in an image, or in every image of a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from vit_cli.reading import ImageSize, Json, Options
from vit_cli.terminal import print_table, say, say_error, spinner, three_digits, write_json
from vit_jax.training.recipe.execution import Precision
from vit_spec import VitportError
from vit_spec.address import in_store
from vit_spec.frameworks import require_torch

_COLUMNS = ("predicted", "probability")
if TYPE_CHECKING:
    import numpy as np

    from conversion import Checkpoint
    from vit_jax.training.data.sources.folders import Folder


def predict(
    image: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE")],
    *,
    weights: Annotated[str, tyro.conf.arg(metavar="PATH")],
    framework: Literal["jax", "torch"] = "jax",
    top: int = 5,
    image_size: ImageSize = None,
    batch: int = 64,
    workers: int = 0,
    precision: Precision = "float32",
    predictions: Annotated[str | None, tyro.conf.arg(metavar="FILE.csv")] = None,
    as_json: Json = False,
    reading: Options,
) -> None:
    """Print the likeliest classes of an image or a folder.

    Args:
        image: Image file; or a folder, whose images all devices of this machine classify, at any depth.
        weights: File, folder or work directory of weights.
        framework: What runs the model.
        top: How many classes to print. Where an image may have several labels, each has a probability of its own.
        image_size: Pixels, a side or height and width, to run at instead of the weights' own.
        batch: Images of a folder at a time, over all devices.
        workers: Processes that decode a folder's images; 0: threads.
        precision: Precision of the computation for a folder; parameters stay in float32.
        predictions: Write a folder's predictions into this table (CSV) instead of printing it.
        as_json: Print JSON instead of tables.
    """
    if top < 1:
        raise VitportError(f"--top must be at least 1; got {top}.")
    if batch < 1 or workers < 0:
        raise VitportError(f"--batch must be 1 or more, and --workers 0 or more; got {batch} and {workers}.")
    folder = _folder(image)
    whole = folder is not None
    if predictions is not None and not whole:
        raise VitportError(f"--predictions is of a folder, and {image} is none: leave it out, or give --json.")
    if predictions is not None:
        from conversion.destination import check_writable

        check_writable(predictions, (image, weights))
    if whole and framework == "torch":
        raise VitportError(f"--framework torch runs one image, and {image} is a folder: leave it out.")
    if whole:
        from vit_jax.inference import offer_cores

        offer_cores()
    if framework == "torch":
        require_torch("vitport predict --framework torch")
    import conversion

    checkpoint = reading.load(weights, image_size)
    if not checkpoint.config.num_classes:
        raise VitportError(
            f"{weights} has no head, so it names no classes: give weights with a classifier, or read its features with "
            "create_model(weights=...).forward_features."
        )
    if folder is not None:
        _predict_folder(checkpoint, folder, top, batch, workers, precision, predictions, as_json)
        return
    pixels = conversion.load_image(image, checkpoint.preprocessing)
    with spinner(f"Running {framework}"):
        logits = _logits(checkpoint, pixels, framework)
    rows = _likeliest(checkpoint, logits, top)
    if as_json:
        write_json({"image": image, "weights": weights, "framework": framework, "top": rows})
        return
    say(f"{image} with {weights} in {framework}")
    print_table(
        ("class", "<label", "probability", "logit"),
        [(str(row["class"]), row["label"] or "", f"{row['probability']:.4f}", f"{row['logit']:.3f}") for row in rows],
    )


def _folder(image: str) -> Folder | None:
    """The folder of this path or address; ``None`` if it is none."""
    names: list[str] = []
    if in_store(image):
        from conversion.store import Objects

        names = [name for name in Objects(image).names() if not name.endswith("/")]
    if not names and not Path(image).is_dir():
        return None
    from vit_jax.training.data.sources.folders import FolderInBucket, FolderOnDisk

    return FolderInBucket(image.rstrip("/"), names) if names else FolderOnDisk(Path(image))


def _likeliest(checkpoint: Checkpoint, logits: np.ndarray, top: int) -> list[dict[str, Any]]:
    import numpy as np

    odds = np.exp(logits - logits.max())
    probabilities = 1 / (1 + np.exp(-logits)) if checkpoint.several_labels else odds / odds.sum()
    return [
        {
            "class": int(at),
            "label": checkpoint.labels[at] if checkpoint.labels else None,
            "probability": float(probabilities[at]),
            "logit": float(logits[at]),
        }
        for at in np.argsort(-logits, kind="stable")[:top]
    ]


def _predict_folder(
    checkpoint: Checkpoint,
    folder: Folder,
    top: int,
    batch: int,
    workers: int,
    precision: Precision,
    predictions: str | None,
    as_json: bool,
) -> None:
    import csv
    import io

    import jax
    import numpy as np

    from conversion.destination import write_file
    from vit_jax.training.evaluation.evaluate import Clock
    from vit_jax.training.evaluation.unlabelled import classify, images_below

    images, clock = images_below(folder), Clock()
    found: list[tuple[str, list[dict[str, Any]]]] = []
    for one in classify(checkpoint, images, clock, batch=batch, workers=workers, precision=precision):
        logits = None if one.logits is None else np.asarray(one.logits, np.float64)
        found.append((one.image, [] if logits is None else _likeliest(checkpoint, logits, top)))
        if logits is None:
            say_error(f"skipped {one.image}, which cannot be read")
    speed = "" if clock.rate is None else f", {three_digits(clock.rate)} images/s after the first batch"
    told = f"{len(found)} images on {jax.local_device_count()} devices, {batch} at a time{speed}"
    if as_json:
        write_json({"folder": str(folder), "images_per_second": clock.rate,
                    "images": [{"image": name, "top": rows} for name, rows in found]})  # fmt: skip
        return
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    places = range(min(top, checkpoint.config.num_classes))
    table.writerow(("image", *(f"{what}{f'_{at + 1}' if at else ''}" for at in places for what in _COLUMNS)))
    for name, rows in found:
        cells = [(row["label"] or str(row["class"]), f"{row['probability']:.6f}") for row in rows]
        cells = cells or [("", "")] * len(places)
        table.writerow((name, *(cell for pair in cells for cell in pair)))
    if predictions is not None:
        write_file(predictions, text.getvalue().encode())
        say(f"wrote {predictions}: {told}")
        return
    for line in text.getvalue().splitlines():
        say(line)
    say_error(told)


def _logits(checkpoint: Checkpoint, pixels: np.ndarray, framework: str) -> np.ndarray:
    """(K,) float64 for an image (H, W, C)."""
    if framework == "torch":
        import vit_torch
        from vit_parity import torch_activations

        model = vit_torch.create_model(weights=checkpoint)
        model.eval()
        *_, output = torch_activations(model, pixels[None]).values()
        return output[0]
    import jax
    import numpy as np

    from vit_jax.inference import compile_inference

    with jax.default_matmul_precision("highest"):  # which accelerators do not use by themselves
        return np.asarray(compile_inference(checkpoint, batch=1)(pixels[None]), np.float64)[0]
