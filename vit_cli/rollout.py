"""``vitport rollout``: where a model looks, drawn over the image."""

from __future__ import annotations

import io
from typing import Annotated

import tyro

from vit_cli.reading import ImageSize, Options
from vit_cli.terminal import say, spinner

_LEAST = 192
"""Images with a shorter side are enlarged to at least this many pixels, by a whole factor."""


def rollout(
    image: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE")],
    output: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")],
    *,
    weights: Annotated[str, tyro.conf.arg(metavar="PATH")],
    image_size: ImageSize = None,
    reading: Options,
) -> None:
    """Draw the attention rollout: where a model looks.

    It multiplies the attention of all blocks, residual connections included (Abnar & Zuidema 2020, section 3), and
    draws how much each patch contributes to the pooled features.

    Args:
        image: Image file.
        output: PNG file to write.
        weights: File, folder or work directory of weights.
        image_size: Pixels, a side or height and width, to run at instead of the weights' own.
    """
    import numpy as np
    from PIL import Image

    import conversion
    import vit_jax
    from conversion.destination import writable_file, write_file
    from vit_parity import capture_jax
    from vit_parity.rollout import rollout as rolled_out

    writable_file(output, sources=(image, weights), ending=".png")
    checkpoint = reading.load(weights, image_size)
    normalised = conversion.load_image(image, checkpoint.preprocessing)
    model = vit_jax.create_model(weights=checkpoint)
    model.eval()
    with spinner("Running jax"):
        seen = rolled_out(capture_jax(model, normalised[None]), checkpoint.config)[0]
    preprocessing = checkpoint.preprocessing
    pixels = np.clip(normalised * np.array(preprocessing.std) + np.array(preprocessing.mean), 0, 1)
    larger = -(-_LEAST // min(pixels.shape[:2]))
    pixels = pixels.repeat(larger, axis=0).repeat(larger, axis=1)
    share = seen / max(float(seen.max()), 1e-12)
    rows, columns = seen.shape
    side = checkpoint.config.patch_size * larger
    covered = rows * side, columns * side
    heat = np.zeros(pixels.shape[:2], np.uint8)  # a margin that fills no patch is not seen at all
    heat[: covered[0], : covered[1]] = np.asarray(
        Image.fromarray((share * 255).astype(np.uint8)).resize(covered[::-1], Image.Resampling.BICUBIC)
    )
    light = pixels.mean(axis=-1, keepdims=True) if pixels.shape[-1] == 1 else pixels
    lit = light * (0.25 + 0.75 * heat[..., None] / 255)  # patches with little attention grow dark
    both = np.concatenate([np.broadcast_to(light, (*light.shape[:2], 3)), np.broadcast_to(lit, (*lit.shape[:2], 3))], 1)
    drawn = io.BytesIO()
    Image.fromarray((both * 255).round().astype(np.uint8)).save(drawn, format="PNG")
    write_file(output, drawn.getvalue())
    row, column = (int(at) for at in np.unravel_index(seen.argmax(), seen.shape))
    say(f"wrote {output}: the patch that counts most is in row {row}, column {column} of {rows}x{columns}")
