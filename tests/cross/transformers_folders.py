"""transformers' models with random weights, saved by ``save_pretrained``, and how far both of ours are from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

import conversion
from vit_parity.capture import jax_activations, torch_activations
from vit_parity.frameworks import run_in


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


def distances(model: torch.nn.Module, folder: Path, size: tuple[int, int], dtype: str = "float64") -> dict[str, float]:
    """Save a model, read it, and compare tokens and answer; largest difference over the largest value.

    Args:
        model: one of transformers', in evaluation mode.
        folder: an empty one for ``save_pretrained``.
        size: height and width of the images.
        dtype: of both computations.

    Returns:
        ``FRAMEWORK tokens`` and ``FRAMEWORK answer`` → distance.
    """
    model.save_pretrained(folder)
    checkpoint = conversion.load(folder)
    images = np.random.default_rng(0).standard_normal((2, *size, checkpoint.config.in_channels))
    expected = answers(model, images, dtype)
    found = {
        framework: run_in(
            framework,
            checkpoint,
            dtype,
            torch=lambda ours: torch_activations(ours, images),
            jax=lambda ours: jax_activations(ours, images.astype(dtype)),
        )
        for framework in ("torch", "jax")
    }
    last = f"blocks.{checkpoint.config.depth - 1}" if "CLIP" in type(model).__name__ else "norm"  # CLIP norms no token
    return {
        f"{framework} {what}": relative(run[name], expected[what])
        for framework, run in found.items()
        for what, name in (("tokens", last), ("answer", "head"))
        if what in expected
    }


def answers(model: torch.nn.Module, images: np.ndarray, dtype: str) -> dict[str, np.ndarray]:
    """``tokens`` (B, N, D) and ``answer`` (B, K), for images (B, H, W, C)."""
    with torch.no_grad():
        pixels = torch.tensor(images.transpose(0, 3, 1, 2)).to(getattr(torch, dtype))
        output = model.to(pixels.dtype)(pixel_values=pixels, output_hidden_states=True)
    if "logits" in output:
        return {"answer": output.logits.numpy()}
    tokens = output.last_hidden_state.numpy()
    pooled = output.get("pooler_output")
    return {"tokens": tokens, "answer": tokens[:, 0] if pooled is None else pooled.numpy()}


def relative(actual: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference over the largest value."""
    assert actual.shape == expected.shape
    assert 0.1 < np.abs(expected).max() < 100
    return float(np.abs(actual - expected).max() / np.abs(expected).max())
