"""``vitport predict``: the classes that a model sees in an image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from vit_cli.reading import ImageSize, Json, Options
from vit_cli.terminal import print_table, say, spinner, write_json
from vit_spec import VitportError
from vit_spec.frameworks import require_torch

if TYPE_CHECKING:
    import numpy as np

    from conversion import Checkpoint


def predict(
    image: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE")],
    *,
    weights: Annotated[str, tyro.conf.arg(metavar="PATH")],
    framework: Literal["jax", "torch"] = "jax",
    top: int = 5,
    image_size: ImageSize = None,
    as_json: Json = False,
    reading: Options,
) -> None:
    """Print the likeliest classes of an image.

    Args:
        image: Image file.
        weights: File, folder or work directory of weights.
        framework: What runs the model.
        top: How many classes to print.
        image_size: Pixels, a side or height and width, to run at instead of the weights' own.
        as_json: Print JSON instead of tables.
    """
    if top < 1:
        raise VitportError(f"--top must be at least 1; got {top}.")
    if framework == "torch":
        require_torch("vitport predict --framework torch")
    import numpy as np

    import conversion

    checkpoint = reading.load(weights, image_size)
    if not checkpoint.config.num_classes:
        raise VitportError(
            f"{weights} has no head, so it names no classes: give weights with a classifier, or read its features with "
            "create_model(weights=...).forward_features."
        )
    pixels = conversion.load_image(image, checkpoint.preprocessing)
    with spinner(f"Running {framework}"):
        logits = _logits(checkpoint, pixels, framework)
    odds = np.exp(logits - logits.max())
    probabilities = odds / odds.sum()
    rows = [
        {
            "class": int(at),
            "label": checkpoint.labels[at] if checkpoint.labels else None,
            "probability": float(probabilities[at]),
            "logit": float(logits[at]),
        }
        for at in np.argsort(-logits, kind="stable")[:top]
    ]
    if as_json:
        write_json({"image": image, "weights": weights, "framework": framework, "top": rows})
        return
    say(f"{image} with {weights} in {framework}")
    print_table(
        ("class", "<label", "probability", "logit"),
        [(str(row["class"]), row["label"] or "", f"{row['probability']:.4f}", f"{row['logit']:.3f}") for row in rows],
    )


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
