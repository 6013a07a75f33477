"""``vitport compare``: one file of weights in both frameworks."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import tyro

from vit_cli.frameworks import require_torch
from vit_cli.reading import ImageSize, Json, Options
from vit_cli.terminal import difference_cells, print_table, say, spinner, write_json

if TYPE_CHECKING:
    import numpy as np

    from conversion import Checkpoint


def compare(
    weights: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="WEIGHTS")],
    *,
    image: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None,
    seed: int = 0,
    image_size: ImageSize = None,
    blocks: bool = False,
    as_json: Json = False,
    reading: Options,
) -> None:
    """Run PyTorch and JAX on the same weights and input, and measure how far apart they are.

    Absolute differences are in the units of the tokens and logits; the relative one is the L2 norm of JAX minus
    PyTorch over that of PyTorch.

    Args:
        weights: file or folder of weights.
        image: Picture to run on; without one, standard normal numbers.
        seed: Seed of those numbers.
        image_size: Pixels, a side or height and width, to run at instead of the weights' own.
        blocks: Measure after every block too.
        as_json: Print JSON instead of tables.
    """
    require_torch("compare")
    from vit_parity import activations_of, measure_all

    with spinner("Running PyTorch and JAX"):
        checkpoint = reading.load(weights, image_size)
        found = activations_of(checkpoint, _input(checkpoint, image, seed))
        differences = measure_all(found["jax"], found["torch"])
    last = "logits" if checkpoint.config.num_classes else "pooled features"
    names = {"norm": "features", "head": last}
    shown = {names.get(name, name): entry for name, entry in differences.items() if blocks or name in names}
    if as_json:
        told = {"weights": weights, "image": image, "seed": None if image else seed}
        write_json(told | {"differences": {name: asdict(entry) for name, entry in shown.items()}})
        return
    say(f"{weights}: JAX against PyTorch, float32, on {image or f'standard normal numbers (seed {seed})'}")
    print_table(
        ("after", "max abs", "relative", "cosine"), [(name, *difference_cells(entry)) for name, entry in shown.items()]
    )


def _input(checkpoint: Checkpoint, image: str | None, seed: int) -> np.ndarray:
    """(1, H, W, C) float32."""
    import numpy as np

    import conversion

    if image is not None:
        return conversion.load_picture(image, checkpoint.preprocessing)[None]
    config = checkpoint.config
    shape = (1, *config.image_size, config.in_channels)
    return np.random.default_rng(seed).standard_normal(shape, np.float32)
