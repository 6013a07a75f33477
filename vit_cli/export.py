"""``vitport export``: a model as a graph that runs without vitport."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

import tyro

from vit_cli.reading import ImageSize, Options
from vit_cli.terminal import say, spinner
from vit_spec import VitportError
from vit_spec.address import in_store
from vit_spec.frameworks import require_torch


def export(
    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")],
    output: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")],
    *,
    preprocessing: bool = False,
    parameters: Literal["within", "beside"] = "within",
    overwrite: bool = False,
    image_size: ImageSize = None,
    reading: Options,
) -> int:
    """Write a model as ONNX, StableHLO or .pt2, and run it back.

    OUT ends in .onnx, .stablehlo or .pt2. The batch is free, the parameters are float32. The file is run by
    onnxruntime, by a process with jax alone, or by one with torch alone, and compared with the other framework's model:
    the status is 1 where they differ by more than 1e-5 of the largest logit.

    Args:
        source: File, folder or work directory of weights.
        output: File to write.
        preprocessing: Take pixels, uint8 (B, H, W, C) of the model's size, and normalise them in the graph.
        parameters: Within the file, or beside it in OUT.data (ONNX, as it must be from 2 GB on) or OUT.safetensors
            (StableHLO, which then takes them as its first argument).
        overwrite: Replace OUT if it exists.
        image_size: Pixels, a side or height and width, instead of the weights' own.
    """
    from conversion.destination import writable_file
    from conversion.store import Objects
    from conversion.store.put import check_free, made_here, put
    from vit_parity.exported import KINDS, data_beside, run_back
    from vit_parity.exported import export as write

    if PurePosixPath(output).suffix not in KINDS:
        raise VitportError(f"{output} says no kind of file by its suffix: give one of {', '.join(KINDS)}.")
    outputs = [output]
    if parameters == "beside":
        outputs.append(f"{output.removesuffix(PurePosixPath(output).name)}{data_beside(Path(output)).name}")
    for each in outputs:
        if in_store(each):
            check_free(each, overwrite=overwrite)
        elif writable_file(each, [source]).exists() and not overwrite:
            raise VitportError(f"{each} exists already: choose another destination, or pass --overwrite.")
    require_torch("vitport export")  # it writes, or compares
    checkpoint = reading.load(source, image_size)
    with made_here(output, overwrite=True) as path:
        with spinner("Exporting"):
            exported = write(checkpoint, path, preprocessing=preprocessing, beside_it=len(outputs) > 1)
        say(f"wrote {output}: {path.stat().st_size / 1e6:.1f} MB, takes {exported.takes}")
        with spinner("Running it back"):
            found = run_back(exported, checkpoint)
        if exported.data is not None:
            say(f"wrote {outputs[1]}: {exported.data.stat().st_size / 1e6:.1f} MB, the parameters")
            if in_store(output):
                objects, name = Objects.holding(output)
                objects.delete([name])  # an old graph never lies beside new parameters; the new one comes last
                put(exported.data, outputs[1], overwrite=True)
    verdict = "equal" if found.equal else "NOT equal"
    say(f"run by {found.by}, batches of 1 and 3: {found.largest:.1e} of the largest logit from the other framework's "
        f"model, {verdict}")  # fmt: skip
    return 0 if found.equal else 1
