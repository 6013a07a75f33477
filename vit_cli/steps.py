"""``vitport steps``: a few steps of training in both frameworks, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro

from vit_cli.reading import ImageSize, Json, Options, check_limit
from vit_cli.terminal import print_table, say, say_error, short_number, spinner, write_json
from vit_spec import VitportError
from vit_spec.frameworks import require_torch


def steps(
    weights: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PATH")],
    *,
    optimizers: tuple[Literal["adamw", "sgd"], ...] = ("adamw", "sgd"),
    dtypes: tuple[Literal["float64", "float32"], ...] = ("float64", "float32"),
    count: int = 20,
    batch: int = 4,
    seed: int = 0,
    image_size: ImageSize = None,
    figure: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None,
    fail_above: Annotated[float | None, tyro.conf.arg(metavar="X")] = None,
    as_json: Json = False,
    reading: Options,
) -> None:
    """Train in both frameworks side by side; measure the drift.

    Both start from the same weights and see the same two batches in turn: standard normal numbers with random labels.
    Dropout is off. The loss is the mean cross-entropy before the step.

    Args:
        weights: File or folder of a classifier's weights.
        optimizers: AdamW, or SGD with momentum 0.9, of torch.optim and optax.
        dtypes: Of models, gradients and the optimizer's state.
        count: How many steps to take.
        batch: Images in a batch.
        seed: Seed of the batches.
        image_size: Pixels, a side or height and width, to run at instead of the weights' own.
        figure: Draw the distances by step into a .png or .svg file.
        fail_above: Exit with status 1 if the parameters are further apart than X after some step.
        as_json: Print JSON instead of tables.
    """
    if count < 1 or batch < 1:
        raise VitportError(f"--count and --batch must be at least 1; got {count} and {batch}.")
    check_limit(fail_above)
    if not (optimizers and dtypes):
        raise VitportError("--optimizers and --dtypes must name at least one each.")
    if figure is not None:
        from conversion.destination import writable_file
        from vit_parity.figure import check_figure

        check_figure(figure)
        writable_file(figure)
    require_torch("vitport steps")
    from vit_parity.training import compare_training, random_batches

    checkpoint = reading.load(weights, image_size)
    runs = {}
    for optimizer in optimizers:
        for dtype in dtypes:
            with spinner(f"Training with {optimizer} in {dtype}"):
                batches = random_batches(checkpoint.config, count, batch, seed)
                runs[optimizer, dtype] = compare_training(checkpoint, batches, optimizer, dtype)
    if figure is not None:
        from vit_parity.figure import write_drift

        write_drift({f"{optimizer}, {dtype}": found for (optimizer, dtype), found in runs.items()}, figure)
    if as_json:
        told = [
            {"optimizer": optimizer, "dtype": dtype, "steps": [step.to_dict() for step in found]}
            for (optimizer, dtype), found in runs.items()
        ]
        write_json({"schema": 1, "weights": weights, "batch": batch, "seed": seed, "runs": told})
    else:
        for (optimizer, dtype), found in runs.items():
            say(f"{optimizer}, {dtype}: relative L2 distance of JAX's parameters from PyTorch's after each step")
            rows = [(str(at), f"{step.loss_torch:.9f}", f"{step.loss_jax:.9f}", short_number(step.distance))
                    for at, step in enumerate(found, 1)]  # fmt: skip
            print_table(("step", "loss in PyTorch", "loss in JAX", "distance"), rows)
    for (optimizer, dtype), found in runs.items():
        above = [at for at, step in enumerate(found, 1) if fail_above is not None and not step.distance <= fail_above]
        if above:
            far = f"{found[above[0] - 1].distance:.1e}, which is above {fail_above:g}"
            say_error(f"{optimizer} in {dtype} differs by {far}, after step {above[0]}.")
            raise SystemExit(1)
