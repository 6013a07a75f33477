"""Writes ``swin_graphs.tar.xz`` and ``swin_graphs_of_peers.tar.xz``: small Swin Transformers as exporters write them.

Run it with ``pip install onnxscript``, which torch's default exporter needs; the second time in an environment with
timm and torchvision::

    PYTHONPATH=. python tests/conversion/onnx/make_swin_graphs.py ours
    PYTHONPATH=. python tests/conversion/onnx/make_swin_graphs.py peers

Beside each graph lie the image and what the PyTorch model gave for it. Weights are such that they pack well.
"""

from __future__ import annotations

import io
import logging
import sys
import tarfile
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

FOLDER = Path(__file__).parent
ARCHIVES = {"ours": FOLDER / "swin_graphs.tar.xz", "peers": FOLDER / "swin_graphs_of_peers.tar.xz"}
WIDE = (24, 40)
"""Maps of 12 x 20 and 6 x 10: windows of 4 divide the first, and not the second."""


class Logits(nn.Module):
    """A model of transformers that gives a tensor."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.model(pixel_values).logits


def ours() -> Iterator[tuple[str, nn.Module, tuple[int, int]]]:
    """Name, model, image size."""
    import transformers as t

    import vit_torch
    from conversion import Checkpoint
    from tests.conversion.swin.models import BASE, weights

    base = BASE.replace(image_size=WIDE, window_rule="axis", pad_order="roll_pad")
    made = {
        "1": base,
        "2": base.replace(version=2),
        "2-pretrained": base.replace(version=2, image_size=32, pretrained_window_sizes=3),
        "1-pad": base.replace(image_size=(12, 36), window_sizes=7, window_rule="pad", pad_order="pad_roll"),
        "1-never": base.replace(window_sizes=7, window_rule="never", pad_order="pad_roll"),
    }
    for name, config in made.items():
        params = {key: _packable(key, array) for key, array in weights(config, dtype=np.float32).items()}
        yield f"ours-{name}", vit_torch.create_model(weights=Checkpoint.of(config, params)), config.image_size
    small: dict[str, Any] = {"patch_size": 2, "embed_dim": 8, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4}
    for size in (WIDE, (32, 32)):
        own = {**small, "image_size": size, "num_labels": 7}
        end = "" if size == WIDE else "-square"
        yield f"transformers-1{end}", _drawn(Logits(t.SwinForImageClassification(t.SwinConfig(**own)))), size
        yield f"transformers-2{end}", _drawn(Logits(t.Swinv2ForImageClassification(t.Swinv2Config(**own)))), size


def peers() -> Iterator[tuple[str, nn.Module, tuple[int, int]]]:
    """Name, model, image size."""
    from timm.models import swin_transformer, swin_transformer_v2  # type: ignore[reportMissingImports]
    from torchvision.models import swin_transformer as tv  # type: ignore[reportMissingImports]

    small: dict[str, Any] = {
        "patch_size": 2, "embed_dim": 8, "depths": (2, 2), "num_heads": (2, 4), "window_size": 4, "num_classes": 7
    }  # fmt: skip
    yield "timm-1", _drawn(swin_transformer.SwinTransformer(img_size=WIDE, **small)), WIDE
    yield "timm-2", _drawn(swin_transformer_v2.SwinTransformerV2(img_size=WIDE, **small)), WIDE
    lists = {**small, "patch_size": [2, 2], "window_size": [4, 4]}
    yield "torchvision-1", _drawn(tv.SwinTransformer(**lists)), WIDE
    second = {"block": tv.SwinTransformerBlockV2, "downsample_layer": tv.PatchMergingV2}
    yield "torchvision-2", _drawn(tv.SwinTransformer(**lists, **second)), WIDE


def _drawn(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            centre = 1.0 if "norm" in name and name.endswith("weight") else 2.0 if "logit_scale" in name else 0.0
            drawn = torch.randn(parameter.shape, generator=generator) * 0.3 + centre
            parameter.copy_(torch.from_numpy(_packable(name, drawn.numpy())))
    return model


def _packable(name: str, array: np.ndarray) -> np.ndarray:
    """Multiples of 1/64; the 512 units of the networks of biases repeat eight of them."""
    array = (np.round(array * 64) / 64).astype(np.float32)
    for end, axis in (("_mlp.0.weight", 0), ("_mlp.0.bias", 0), ("_mlp.2.weight", 1)):
        if name.endswith(end):
            own = np.take(array, range(8), axis)
            repeated = [64 if at == axis else 1 for at in range(array.ndim)]
            array = np.tile(own / (8 if axis else 1), repeated).astype(np.float32)
    return array


def _graphs(model: nn.Module, image: torch.Tensor, folder: Path) -> Iterator[tuple[str, Path]]:
    path = folder / "graph.onnx"
    options: dict[str, Any] = {"input_names": ["pixel_values"], "dynamic_axes": {"pixel_values": {0: "batch"}}}
    torch.onnx.export(model, (image,), str(path), dynamo=False, opset_version=14, **options)
    yield "old-14", path
    try:
        torch.onnx.export(model, (image,), str(path), dynamo=True, opset_version=18, external_data=False, verbose=False)
    except Exception as error:  # what it cannot export is not exported
        print(f"no graph by dynamo: {str(error).splitlines()[0]}")  # noqa: T201
        return
    yield "dynamo-18", path


def main(whose: str) -> None:
    """Write the archive."""
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    archive = ARCHIVES[whose]
    with tempfile.TemporaryDirectory() as folder, tarfile.open(archive, "w:xz", preset=9) as out:
        for name, model, size in ours() if whose == "ours" else peers():
            image = torch.randn((1, 3, *size), generator=torch.Generator().manual_seed(1))
            with torch.no_grad():
                output = model.eval()(image)
            buffer = io.BytesIO()
            np.savez(buffer, image=image.numpy(), output=output.numpy())
            _add(out, f"{name}.npz", buffer.getvalue())
            for way, path in _graphs(model, image, Path(folder)):
                _add(out, f"{name}.{way}.onnx", _bare(path))
    print(f"{archive}: {archive.stat().st_size} bytes")  # noqa: T201


def _bare(path: Path) -> bytes:
    """The graph without stack traces and inferred shapes."""
    model = onnx.load(path)
    del model.graph.value_info[:]
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    return model.SerializeToString()


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


if __name__ == "__main__":
    main(sys.argv[1])
