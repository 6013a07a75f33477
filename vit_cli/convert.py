"""``vitport convert``: weights from one format to another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from vit_cli.reading import ImageSize, Options
from vit_cli.terminal import progress, say
from vit_spec import VitportError, count_parameters


def convert(
    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SRC")],
    destination: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DST")],
    *,
    to: Annotated[str, tyro.conf.arg(metavar="FORMAT")],
    image_size: ImageSize = None,
    overwrite: bool = False,
    reading: Options,
) -> None:
    """Convert weights to another format.

    Args:
        source: file or folder of weights.
        destination: file or folder to write.
        to: Format to write, such as timm or flax; an unknown one lists them all.
        image_size: Pixels, a side or height and width, to resize the position table for.
        overwrite: Replace the destination if it exists.
    """
    import conversion

    if Path(destination).exists() and not overwrite:
        raise VitportError(f"{destination} exists already: choose another destination, or add --overwrite.")
    if not Path(destination).parent.is_dir():
        raise VitportError(f"{destination} cannot be written: {Path(destination).parent} is no folder; make it first.")
    checkpoint = reading.load(source, image_size)
    with progress("Writing") as told:
        conversion.save(checkpoint, destination, format=to, overwrite=overwrite, progress=told)
    written = conversion.load(destination, model=checkpoint.config)  # what can be read back whole has been written
    size = count_parameters(written.config) / 1e6
    say(f"wrote {destination}: {len(written.params)} tensors, {size:.2f} M parameters, format {to}")
    say(f"sha256 {written.provenance.sha256}")
