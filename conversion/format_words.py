"""Words that people take for formats: containers, frameworks and models → the name or command that does it."""

from __future__ import annotations

import difflib
import re

from conversion.formats import FORMATS, groups
from vit_spec import VitportError

_TORCH = "timm (a state_dict as safetensors), torchvision or torch-encoder (.pth)"
_JAX = "flax (an orbax folder of vit_jax), google-linen (msgpack) or google (.npz)"
_SAFETENSORS = "timm (one safetensors file) or huggingface (a folder with model.safetensors)"
_EXPORT = "`vitport export MODEL OUT.{}` writes it"
_TRACE = "torch.jit.trace takes the model that vitport.create_model(weights=…) gives"
_READ_ONNX = "`vitport export MODEL OUT.onnx` writes ONNX, which {} reads"
_NONE = "vitport does not write {}: write safetensors, --to timm, and convert that with its own tools"
_FORMATS = {
    "safetensors": _SAFETENSORS, "safetensor": _SAFETENSORS, "mlx": _SAFETENSORS,
    "pytorch": _TORCH, "torch": _TORCH, "pt": _TORCH, "pth": _TORCH, "bin": _TORCH, "ckpt": _TORCH,
    "state_dict": _TORCH, "lightning": _TORCH,
    "jax": _JAX, "linen": "google-linen", "nnx": "flax", "vit_jax": "flax", "vit_torch": "timm",
    "orbax": "flax", "checkpoint": "flax", "msgpack": "google-linen", "flax_msgpack": "google-linen",
    "npz": "google, big-vision or big-vision-scan", "numpy": "google, big-vision or big-vision-scan",
    "scenic": "google-linen", "augreg": "google", "vision_transformer": "google",
    "hf": "huggingface", "transformers": "huggingface", "hub": "huggingface", "hugging_face": "huggingface",
    "save_pretrained": "huggingface",
    "vit": "huggingface-vit (transformers' class) or google (the paper's code)",
    "deit": "huggingface-deit (transformers' class) or timm (the names of the authors' code)",
    "dino": "timm (the names of the authors' code) or huggingface-vit",
    "dinov2": "huggingface-dinov2 (transformers' class) or timm (the names of the authors' code)",
    "mae": "timm (the names of the authors' code) or huggingface-vit",
    "clip": "huggingface-clip", "openclip": "huggingface-clip", "open_clip": "huggingface-clip",
    "siglip": "huggingface-siglip (transformers' class) or big-vision", "torch_vision": "torchvision",
    "simmim": "timm", "moco": "timm", "mmpretrain": "timm", "mmcls": "timm",
    "swin": "huggingface-swin (transformers' class), timm-swin or microsoft-swin (the authors' code)",
    "beit": "huggingface-beit (transformers' class) or timm", "eva": "timm-eva", "eva02": "timm-eva",
    "relpos": "timm-relpos",
    "tensorstore": "flax", "zarr": "flax", "ocdbt": "flax", "npy": "google, big-vision or big-vision-scan",
}  # fmt: skip
"""Word → the formats that are meant."""
_ADVICE = {
    "onnx": _EXPORT.format("onnx") + ", and to read one, leave out --from",
    "pt2": _EXPORT.format("pt2"), "exported_program": _EXPORT.format("pt2"),
    "stablehlo": _EXPORT.format("stablehlo"), **dict.fromkeys(("torchscript", "jit"), _TRACE),
    "openvino": _READ_ONNX.format("OpenVINO"), "tensorrt": _READ_ONNX.format("TensorRT"),
    **{
        word: _NONE.format(word)
        for word in ("keras", "tf", "tensorflow", "saved_model", "h5", "hdf5", "tflite", "gguf", "ggml", "coreml",
                     "paddle", "tfjs", "mlmodel", "pickle", "pkl", "csv")
    },
    **dict.fromkeys(
        ("cait", "crossvit", "pvt", "levit", "mobilevit", "convnext", "resnet", "hiera", "bert"),
        "it is another kind of model than those that vitport has",
    ),
}  # fmt: skip
"""Word → what to do, where no format does it."""
_AROUND = frozenset({"model", "models", "format", "checkpoint", "weights", "file", "folder", "style", "names"})
"""Words beside the one that is meant."""
INSTEAD = {"openai-clip": "huggingface-clip", "dinov2-chunked": "timm", "mmpretrain": "timm",
           "huggingface-flax": "huggingface or google-linen"}  # fmt: skip
"""A format that is only read → those that hold the same models and are written."""


def unknown_format(name: str) -> VitportError:
    """The error for a name that is not a format's, with what is probably meant."""
    names = sorted({*groups(), *FORMATS})
    parts = [part for part in re.split(r"[\W_]+", name.lower()) if part]
    word = "_".join([part for part in parts if part not in _AROUND] or parts)
    if word in _ADVICE:
        return VitportError(f"{name!r} is not a format of names and tensors: {_ADVICE[word]}.")
    if meant := _FORMATS.get(word, _FORMATS.get(word.replace("_", ""))):
        return VitportError(
            f"No format is named {name!r}: to write, choose --to {meant}; to read, leave out --from, because a file is "
            "recognised by what it holds."
        )
    near = difflib.get_close_matches(name.lower().replace("_", "-"), names, n=2, cutoff=0.7)
    if near:
        return VitportError(
            f"No format is named {name!r}: did you mean {' or '.join(near)}? `--to all` lists all formats."
        )
    return VitportError(f"No format is named {name!r}: choose one of {', '.join(names)}.")
