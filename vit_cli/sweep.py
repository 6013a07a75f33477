"""``vitport sweep``: one model run in every way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from vit_cli.reading import ImageSize, Json, Options
from vit_cli.terminal import print_table, say, short_number, spinner, write_json
from vit_spec import VitportError
from vit_spec.frameworks import require_torch

if TYPE_CHECKING:
    from vit_parity.sweep import Result

HEADERS = ("framework", "dtype", "precision", "attention", "jit", "threads", "error", "alone", "moved", "repeats")


def sweep(
    weights: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PATH")],
    *,
    every: Annotated[bool, tyro.conf.arg(name="all")] = False,
    dtypes: tuple[Literal["float32", "bfloat16", "float16"], ...] = ("float32", "bfloat16", "float16"),
    batch: int = 4,
    seed: int = 0,
    image_size: ImageSize = None,
    as_json: Json = False,
    reading: Options,
) -> None:
    """Measure the error of each dtype, precision and attention.

    The reference is the model in float64. Each setting is changed alone, the others keep their defaults; compilation
    and batch size are settings too. The images are standard normal numbers. See docs/reports/sweep.md.

    Args:
        weights: File, folder or work directory of weights.
        every: Try all combinations instead of each setting alone.
        dtypes: Which to try.
        batch: Images in the batch, at least two.
        seed: Seed of the images.
        image_size: Pixels, a side or height and width, to run at instead of the weights' own.
        as_json: Print JSON instead of a table.
    """
    if batch < 2:
        raise VitportError(f"--batch must be at least 2, so that an image can change its place; got {batch}.")
    if not dtypes:
        raise VitportError("--dtypes must name at least one of float32, bfloat16, float16.")
    require_torch("vitport sweep")
    import numpy as np

    from vit_parity.seeded import seeded
    from vit_parity.sweep import all_cases, one_at_a_time
    from vit_parity.sweep import sweep as run

    checkpoint = reading.load(weights, image_size)
    shape = (batch, *checkpoint.config.image_size, checkpoint.config.in_channels)
    images = seeded(seed).standard_normal(shape, np.float32)
    cases = list((all_cases if every else one_at_a_time)(dtypes))
    with spinner(f"Running {len(cases)} ways"):
        results = run(checkpoint, images, cases)
    if as_json:
        cases_told = [result.to_dict() for result in results]
        write_json({"schema": 1, "weights": weights, "batch": batch, "seed": seed, "cases": cases_told})
        return
    say("error: relative L2 distance of the output from float64; alone, moved: of an image's output in the batch from")
    say("the same alone, and at another place in the batch; 0 means equal bit for bit")
    print_table(HEADERS, [cells(result) for result in results])


def cells(result: Result) -> list[str]:
    """One row; a setting that the framework does not have stays empty."""
    case = result.case
    threads = {0: "all"}.get(case.threads, str(case.threads)) if case.framework == "torch" else ""
    settings = [case.framework, case.dtype, case.precision, case.attention]
    settings += [("yes" if case.jit else "no") if case.framework == "jax" else "", threads]
    if result.refused:
        return [*settings, "refused", "", "", ""]
    numbers = [short_number(number) for number in (result.error, result.alone, result.moved)]
    return [*settings, *numbers, "yes" if result.repeats else "no"]
