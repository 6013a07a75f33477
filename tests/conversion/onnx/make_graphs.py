"""Writes ``graphs.tar.xz``: small models of this project and of transformers, as exporters and optimisers write them.

Run it with ``pip install onnxscript``, which torch's default exporter needs::

    PYTHONPATH=. python tests/conversion/onnx/make_graphs.py

Beside each graph lie the image and what the PyTorch model gave for it. Weights are multiples of 1/64, which pack well,
and the graphs of a model share them in one stream.
"""

from __future__ import annotations

import io
import logging
import tarfile
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
import transformers
from torch import nn

import vit_torch
from conversion import Checkpoint
from tests.random_weights import random_params
from tests.small_configs import COMBINATIONS, CONFIGS

ARCHIVE = Path(__file__).parent / "graphs.tar.xz"
SIZE = {
    "image_size": (12, 20), "patch_size": 4, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3,
    "num_labels": 7, "num_channels": 3,
}  # fmt: skip
OURS = COMBINATIONS | {
    name: CONFIGS[name]
    for name in ("swiglu-packed-norm", "average-over-all", "map-with-prefix", "distilled-pooled", "layer-scale")
}


class Outputs(nn.Module):
    """A model of transformers whose outputs are tensors."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(value for value in self.model(pixel_values).values() if value is not None)


def transformers_models() -> Iterator[tuple[str, nn.Module, tuple[int, int]]]:
    """Name, model, image size."""
    t, square = transformers, SIZE | {"image_size": (16, 16)}
    wide = SIZE | {"intermediate_size": 41}
    squares = square | {"intermediate_size": 41, "image_size": 16}
    made: dict[str, Callable[[], nn.Module]] = {
        "vit": lambda: t.ViTForImageClassification(t.ViTConfig(**wide)),
        "vit-pooler": lambda: t.ViTModel(t.ViTConfig(**wide)),
        "deit": lambda: t.DeiTForImageClassificationWithTeacher(t.DeiTConfig(**wide)),
        "dinov2": lambda: t.Dinov2Model(t.Dinov2Config(**square)),
        "dinov2-resized": lambda: t.Dinov2ForImageClassification(t.Dinov2Config(**square)),
        "dinov2-swiglu": lambda: t.Dinov2Model(t.Dinov2Config(**square, use_swiglu_ffn=True)),
        "dinov2-registers": lambda: t.Dinov2WithRegistersForImageClassification(
            t.Dinov2WithRegistersConfig(**square, num_register_tokens=2)
        ),
        "siglip": lambda: t.SiglipVisionModel(t.SiglipVisionConfig(**squares)),
        "siglip-classifier": lambda: t.SiglipForImageClassification(
            t.SiglipConfig(vision_config=t.SiglipVisionConfig(**squares).to_dict(), num_labels=7)
        ),
        "clip": lambda: t.CLIPVisionModelWithProjection(t.CLIPVisionConfig(**squares, projection_dim=9)),
    }
    for name, make in made.items():
        size = (12, 20) if name in ("vit", "vit-pooler", "deit", "dinov2-resized") else (16, 16)
        yield f"transformers-{name}", Outputs(_drawn(make())), size


def our_models() -> Iterator[tuple[str, nn.Module, tuple[int, int]]]:
    """Name, model, image size."""
    for name, config in OURS.items():
        params = {key: _rounded(array) for key, array in random_params(config, seed=3, dtype=np.float32).items()}
        yield f"ours-{name}", vit_torch.create_model(weights=Checkpoint.of(config, params)).eval(), config.image_size


def _drawn(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            drawn = torch.randn(parameter.shape, generator=generator) * 0.3 + centre
            parameter.copy_(torch.from_numpy(_rounded(drawn.numpy())))
    return model.eval()


def _rounded(array: np.ndarray) -> np.ndarray:
    return (np.round(array * 64) / 64).astype(np.float32)


def old(model: nn.Module, image: torch.Tensor, path: Path, version: int) -> None:
    """torch's first exporter, with any batch."""
    axes = {"pixel_values": {0: "batch"}}
    torch.onnx.export(model, (image,), str(path), dynamo=False, opset_version=version, input_names=["pixel_values"],
                      dynamic_axes=axes)  # fmt: skip


def dynamo(model: nn.Module, image: torch.Tensor, path: Path, version: int) -> None:
    """torch's exporter of today."""
    torch.onnx.export(
        model, (image,), str(path), dynamo=True, opset_version=version, external_data=False, verbose=False
    )


def optimised(source: Path, path: Path) -> None:
    """onnxruntime's extended optimisations, saved."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 4
    onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])


def quantised(source: Path, path: Path) -> None:
    """onnxruntime's dynamic quantisation."""
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(str(source), str(path))


def bare(path: Path) -> bytes:
    """The graph without stack traces and inferred shapes."""
    model = onnx.load(path)
    del model.graph.value_info[:]
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    return model.SerializeToString()


def main() -> None:
    """Write the archive."""
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    with (
        tempfile.TemporaryDirectory() as folder,
        tarfile.open(ARCHIVE, "w:xz", preset=9) as out,
    ):
        for name, model, (height, width) in (*transformers_models(), *our_models()):
            channels = 1 if "scaled" in name else 3
            image = torch.randn((1, channels, height, width), generator=torch.Generator().manual_seed(1))
            image = torch.round(image * 64) / 64
            with torch.no_grad():
                given = model(image)
            outputs = given if isinstance(given, tuple) else (given,)
            buffer = io.BytesIO()
            np.savez(buffer, image=image.numpy(), **{f"output{at}": it.numpy() for at, it in enumerate(outputs)})
            _add(out, f"{name}.npz", buffer.getvalue())
            for way, path in _graphs(name, model, image, Path(folder)):
                _add(out, f"{name}.{way}.onnx", bare(path))
    print(f"{ARCHIVE}: {ARCHIVE.stat().st_size} bytes")  # noqa: T201


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def _graphs(name: str, model: nn.Module, image: torch.Tensor, folder: Path) -> Iterator[tuple[str, Path]]:
    rms = "rms" in name or name == "ours-parallel"  # no exporter before version 18 has it
    path = folder / "graph.onnx"
    if "registers" not in name and not rms:
        version = 14 if name.startswith("transformers") else 11  # their attention needs 14
        old(model, image, path, version)
        yield f"old-{version}", path
        if name.startswith("transformers"):
            optimised(path, folder / "optimised.onnx")
            yield "old-14-optimised", folder / "optimised.onnx"
    for version in (18, 23) if name.startswith("transformers") else (18,):
        dynamo(model, image, path, version)
        yield f"dynamo-{version}", path
    if name == "transformers-vit":
        quantised(path, folder / "quantised.onnx")
        yield "quantised", folder / "quantised.onnx"
    if not name.startswith("transformers"):
        optimised(path, folder / "optimised.onnx")
        yield "dynamo-18-optimised", folder / "optimised.onnx"


if __name__ == "__main__":
    main()
