"""transformers' models with random weights, saved by ``save_pretrained``, and how far both of ours are from them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import conversion
from vit_parity.capture import jax_activations, torch_activations
from vit_parity.frameworks import Framework, run_in
from vit_spec.swin.windows import offset_coordinates


def randomize(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Random parameters, none near a neutral value, so that a swapped or forgotten one shows; evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            table = "embeddings" in name and "projection" not in name and "patch" not in name
            std = parameter[0].numel() ** -0.5 if parameter.ndim > 1 and not table else 0.3
            factor = parameter.ndim == 1 and name.endswith(("weight", "lambda1"))
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * std + float(factor))
    return model.eval()


def check_both_spellings(model: torch.nn.Module, folder: Path) -> None:
    """transformers writes names of its own to disk, and has others in memory, which a dump of a state_dict holds: both
    are read as the same model."""
    read = []
    for name, original in (("disk", True), ("memory", False)):
        model.save_pretrained(folder / name, save_original_format=original)
        read.append(conversion.load(folder / name))
    disk, memory = read
    assert disk.config == memory.config
    assert set(disk.params) == set(memory.params)
    assert all(np.array_equal(disk.params[name], memory.params[name]) for name in disk.params)


def distances(
    model: torch.nn.Module, folder: Path, size: tuple[int, int], *, frameworks: Sequence[Framework] = ("torch", "jax")
) -> dict[str, float]:
    """Save a model, read it, and compare tokens and answer in float64; largest difference over the largest value.

    Args:
        model: one of transformers', in evaluation mode.
        folder: an empty one for ``save_pretrained``.
        size: height and width of the images.
        frameworks: of ours.

    Returns:
        ``FRAMEWORK tokens`` and ``FRAMEWORK answer`` → distance.
    """
    model.save_pretrained(folder)
    checkpoint = conversion.load(folder)
    images = np.random.default_rng(0).standard_normal((2, *size, checkpoint.config.in_channels))
    expected = answers(model, images, "float64")
    found = {
        framework: run_in(
            framework,
            checkpoint,
            "float64",
            torch=lambda ours: torch_activations(ours, images),
            jax=lambda ours: jax_activations(ours, images),
        )
        for framework in frameworks
    }
    bare = re.search("clip|owl", type(model).__name__, re.IGNORECASE)  # CLIP norms no token
    last = f"blocks.{checkpoint.config.depth - 1}" if bare else "norm"
    prefix = getattr(checkpoint.config, "num_prefix_tokens", 0)
    return {
        f"{framework} {what}": relative(run[name][:, prefix:] if what == "patches" else run[name], expected[what])
        for framework, run in found.items()
        for what, name in (("tokens", last), ("patches", last), ("answer", "head"))
        if what in expected
    }


def answers(model: torch.nn.Module, images: np.ndarray, dtype: str) -> dict[str, np.ndarray]:
    """What the class gives for images (B, H, W, C): ``tokens`` (B, N, D) or ``patches``, ``answer`` (B, K).

    Of a class for pre-training, what its encoder gives.
    """
    pixels = torch.tensor(images.transpose(0, 3, 1, 2)).to(getattr(torch, dtype))
    name = type(model).__name__
    model = (model.base_model if "For" in name and "Classification" not in name else model).to(pixels.dtype)
    if dtype == "float64":
        with_exact_coordinates(model)
        with_exact_angles(model)
    with torch.no_grad():
        inputs = {"pixel_values": pixels}
        if "Siglip2" in type(model).__name__:
            inputs = as_rows(pixels, getattr(model.config, "vision_config", model.config).patch_size)
        if hasattr(model, "get_image_features"):
            return {"answer": model.get_image_features(**inputs).pooler_output.numpy()}
        if getattr(model.config, "mask_ratio", None) is not None:  # patches stay in order where the noise rises
            count = (model.config.image_size // model.config.patch_size) ** 2
            output = model(pixel_values=pixels, noise=torch.arange(count).expand(len(pixels), -1))
        else:
            output = model(**inputs)
    if "feature_maps" in output:
        return {"patches": output.feature_maps[-1].flatten(2).transpose(1, 2).numpy()}
    if "logits" in output:
        return {"answer": output.logits.numpy()}
    if "Blip" in name:  # norms the class token twice
        return {"tokens": output.last_hidden_state.numpy()}
    tokens, pooled = output.last_hidden_state.numpy(), output.get("image_embeds", output.get("pooler_output"))
    return {"tokens": tokens} if pooled is None else {"tokens": tokens, "answer": pooled.numpy()}


def as_rows(pixels: torch.Tensor, side: int) -> dict[str, torch.Tensor]:
    """What SigLIP 2 takes: patches row by row, their pixels by row, column and channel, and the grid."""
    B, C, H, W = pixels.shape
    grid = (H // side, W // side)
    cut = pixels.reshape(B, C, grid[0], side, grid[1], side).permute(0, 2, 4, 3, 5, 1)
    return {
        "pixel_values": cut.reshape(B, grid[0] * grid[1], side * side * C),
        "pixel_attention_mask": torch.ones(B, grid[0] * grid[1], dtype=torch.int64),
        "spatial_shapes": torch.tensor([grid] * B),
    }


def with_exact_coordinates(model: torch.nn.Module) -> None:
    """Swin v2's coordinates in float64, which transformers computes in float32: 1e-8 in the outputs."""
    modules: list[Any] = [module for module in model.modules() if hasattr(module, "continuous_position_bias_mlp")]
    for module in modules:
        window, pretrained = tuple(map(int, module.window_size)), tuple(module.pretrained_window_size)
        table = torch.tensor(offset_coordinates(window, pretrained), dtype=torch.float64)
        module.relative_coords_table = table.reshape(module.relative_coords_table.shape)


def with_exact_angles(model: torch.nn.Module) -> None:
    """DINOv3's cosines and sines in float64, which transformers computes in float32: 1e-7 in the outputs."""
    modules: list[Any] = [it for it in model.modules() if type(it).__name__ == "DINOv3ViTRopePositionEmbedding"]
    for module in modules:
        module.forward = partial(_exact_angles, module)


def _exact_angles(module: Any, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    rows, columns = (side // module.config.patch_size for side in pixels.shape[2:])
    inverse = module.base ** -torch.arange(0, 1, 4 / module.head_dim, dtype=torch.float64)
    y, x = (2 * (torch.arange(n, dtype=torch.float64) + 0.5) / n - 1 for n in (rows, columns))
    places = torch.cartesian_prod(y, x)  # (rows columns, 2)
    angles = (2 * torch.pi * places[:, :, None] * inverse).flatten(1).tile(2)
    return angles.cos(), angles.sin()


def relative(actual: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference over the largest value."""
    assert actual.shape == expected.shape
    assert 0.1 < np.abs(expected).max() < 100
    return float(np.abs(actual - expected).max() / np.abs(expected).max())
