"""From weights to ONNX, StableHLO or a program of torch.export, with the batch free."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from safetensors.numpy import save_file

from conversion import Checkpoint
from conversion.destination import beside, writable_file
from vit_spec import VitportError, count_parameters

if TYPE_CHECKING:
    import torch

INPUT, OUTPUT = "images", "logits"
BESIDE = {".onnx": ".data", ".stablehlo": ".safetensors"}
"""Suffix → what is added to the name for a file with the parameters."""
_MOST = 2_000_000_000
"""Bytes of parameters within a file of ONNX, a protobuf of less than 2 GiB."""
_SMALL = 1024
"""Bytes of a constant of ONNX that stays within."""
_OPSET = 18


class Data(NamedTuple):
    """Where to write parameters, and the name that the file has in the end."""

    path: Path
    name: str


@dataclass(frozen=True)
class Exported:
    """What was written."""

    path: Path
    kind: str
    """``onnx``, ``stablehlo`` or ``pt2``."""
    shape: tuple[int, int, int]
    """Of one image, as the graph takes it."""
    takes: str
    """What the graph takes, in words."""
    raw: bool
    """Whether it takes pixels, uint8, and normalises them itself."""
    data: Path | None = None
    """The file with the parameters, where they are not within."""


def data_beside(path: Path) -> Path:
    """Where the parameters of a graph are that are not within it.

    Raises:
        VitportError: for a kind of file that always has them within.
    """
    if path.suffix not in BESIDE:
        raise VitportError(
            f"{path} has its parameters within: torch.export writes no other files. Give {' or '.join(BESIDE)}."
        )
    return path.with_name(path.name + BESIDE[path.suffix])


def export(checkpoint: Checkpoint, path: Path, *, preprocessing: bool = False, beside_it: bool = False) -> Exported:
    """Writes the model in evaluation mode, float32, with its parameters; the suffix of the path says as what.

    ONNX and torch.export take images as PyTorch's models do, (B, C, H, W), StableHLO as those of JAX, (B, H, W, C).

    Args:
        preprocessing: take pixels, uint8 (B, H, W, C) of the model's size, and normalise them in the graph.
        beside_it: the parameters go into a file of their own, :func:`data_beside`: ONNX's external data, or a
            safetensors file with what a StableHLO program takes as its first argument.

    Raises:
        VitportError: for another suffix, or what an exporter cannot write.
    """
    write = KINDS.get(path.suffix)
    if write is None:
        raise VitportError(f"{path} says no kind of file by its suffix: give one of {', '.join(KINDS)}.")
    height, width = checkpoint.config.image_size
    channels = checkpoint.config.in_channels
    last = preprocessing or path.suffix == ".stablehlo"
    shape = (height, width, channels) if last else (channels, height, width)
    words = "pixels, uint8" if preprocessing else "normalised images, float32"
    found = writable_file(path, ending=path.suffix)
    part = beside(found, f"part{path.suffix}")
    data = writable_file(data_beside(path)) if beside_it else None
    data_part = None if data is None else Data(beside(data, "part"), data.name)
    try:
        write(checkpoint, part, shape, preprocessing, data_part)
        if data is not None and data_part is not None:
            found.unlink(missing_ok=True)  # else it would lie beside parameters of another, if this ended here
            data_part.path.replace(data)
        part.replace(found)
    except OSError as error:
        raise VitportError(f"{path} cannot be written ({error.strerror or error}): give another path.") from error
    finally:
        part.unlink(missing_ok=True)
        if data_part is not None:
            data_part.path.unlink(missing_ok=True)
    takes = f"{words}, ({', '.join(map(str, ('B', *shape)))})"
    return Exported(path, path.suffix.removeprefix("."), shape, takes, preprocessing, data)


def _stablehlo(checkpoint: Checkpoint, path: Path, shape: tuple[int, int, int], raw: bool, data: Data | None) -> None:
    import jax
    import jax.numpy as jnp
    from jax import export as jax_export

    import vit_jax
    from vit_jax.preprocessing import normalise
    from vit_jax.pure import Pure

    model = vit_jax.create_model(weights=checkpoint)
    model.eval()
    pure, params = Pure(model), vit_jax.get_params(model)

    def forward(values: dict[str, jax.Array], images: jax.Array) -> jax.Array:
        return pure(values)(normalise(images, checkpoint.preprocessing) if raw else images)

    (batch,) = jax_export.symbolic_shape("B")
    images = jax.ShapeDtypeStruct((batch, *shape), jnp.uint8 if raw else jnp.float32)
    export_for = partial(jax_export.export, platforms=("cpu", "cuda", "tpu"))
    with jax.default_matmul_precision("highest"):
        if data is None:
            found = export_for(jax.jit(partial(forward, params)))(images)
        else:
            found = export_for(jax.jit(forward))({name: jax.typeof(value) for name, value in params.items()}, images)
            save_file({name: np.asarray(value) for name, value in params.items()}, data.path)
    path.write_bytes(found.serialize())


def _pt2(checkpoint: Checkpoint, path: Path, shape: tuple[int, int, int], raw: bool, data: Data | None) -> None:
    import torch

    module, images = _torch(checkpoint, shape, raw)
    batch = torch.export.Dim("B", min=1)
    with _quiet():
        torch.export.save(torch.export.export(module, (images,), dynamic_shapes=({0: batch},)), path)


def _onnx(checkpoint: Checkpoint, path: Path, shape: tuple[int, int, int], raw: bool, data: Data | None) -> None:
    import torch

    size = 4 * count_parameters(checkpoint.config)
    if data is None and size > _MOST:
        raise VitportError(
            f"The parameters take {size:,} bytes and do not fit into an ONNX file, which has at most {_MOST:,}: pass "
            "--parameters beside."
        )
    module, images = _torch(checkpoint, shape, raw)
    free = {INPUT: {0: "B"}, OUTPUT: {0: "B"}}
    with _quiet():  # the exporter by tracing; the other needs onnxscript
        torch.onnx.export(
            module, (images,), str(path), dynamo=False, input_names=[INPUT], output_names=[OUTPUT], dynamic_axes=free,
            opset_version=_OPSET, export_params=data is None, do_constant_folding=data is None,
        )  # fmt: skip
    if data is not None:
        _add_beside(path, {name: tensor.numpy() for name, tensor in module.state_dict().items()}, data)


def _add_beside(path: Path, arrays: dict[str, np.ndarray], data: Data) -> None:
    """Gives a graph that takes its parameters as inputs these as external data, however large they are together."""
    import onnx

    model = onnx.load(path)
    inputs = [it for it in model.graph.input if it.name not in arrays]
    used = [it.name for it in model.graph.input if it.name in arrays]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    with data.path.open("wb") as file:
        for name in used:
            array = arrays[name]
            tensor = onnx.TensorProto(
                name=name, dims=array.shape, data_type=onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
            )
            content = np.ascontiguousarray(array).data
            if array.nbytes < _SMALL:
                tensor.raw_data = content.tobytes()
            else:
                tensor.data_location = onnx.TensorProto.EXTERNAL
                place = {"location": data.name, "offset": file.tell(), "length": array.nbytes}
                for key, value in place.items():
                    tensor.external_data.add(key=key, value=str(value))
                file.write(content)
            model.graph.initializer.append(tensor)
    onnx.save_model(model, path)


KINDS: dict[str, Callable[[Checkpoint, Path, tuple[int, int, int], bool, Data | None], None]] = {
    ".onnx": _onnx,
    ".stablehlo": _stablehlo,
    ".pt2": _pt2,
}
"""Suffix → what writes such a file."""


def _torch(checkpoint: Checkpoint, shape: tuple[int, int, int], raw: bool) -> tuple[torch.nn.Module, torch.Tensor]:
    import torch

    import vit_torch

    model = vit_torch.create_model(weights=checkpoint).eval()
    if not raw:
        return model, torch.zeros(2, *shape)

    class Normalised(torch.nn.Module):
        """(B, H, W, C), uint8, to what the model takes."""

        mean: torch.Tensor
        std: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.model = model
            self.register_buffer("mean", torch.tensor(checkpoint.preprocessing.mean))
            self.register_buffer("std", torch.tensor(checkpoint.preprocessing.std))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.model(((images.float() / 255 - self.mean) / self.std).permute(0, 3, 1, 2))

    return Normalised().eval(), torch.zeros(2, *shape, dtype=torch.uint8)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' own remarks, which are about our code and not about the file."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def example(exported: Exported, batch: int) -> np.ndarray:
    """Fixed random images as the graph takes them."""
    rng = np.random.default_rng(batch)
    shape = (batch, *exported.shape)
    return rng.integers(0, 256, shape).astype(np.uint8) if exported.raw else rng.standard_normal(shape, np.float32)
