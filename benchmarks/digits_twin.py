"""The digits recipe in both frameworks: ``python -m benchmarks.digits_twin [--seeds 0 1 2] [--output FILE]``.

For each seed the preset ``digits`` is trained by vit_jax, as ``vitport train --preset digits`` does, and by a plain
PyTorch loop over vit_torch, from the same initial weights and on the same batches; stochastic depth draws its own
random numbers in each. Printed are the accuracies on the test fifth, and the seconds of each.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
import torch
import tyro

import conversion
import vit_torch
from vit_jax.training.data import Stream, evaluation_batches
from vit_jax.training.recipe.presets import get_preset
from vit_jax.training.run.loop import run
from vit_jax.training.run.setup import Setup, set_up


def main(seeds: tuple[int, ...] = (0, 1, 2), output: Path | None = None) -> None:
    """Trains both for every seed.

    Args:
        seeds: of initial weights, order of images and augmentation.
        output: JSON file for the results.
    """
    found = {"jax": [], "torch": []}
    for seed in seeds:
        setup = set_up(dataclasses.replace(get_preset("digits").config, seed=seed))
        for name, train in (("jax", _jax), ("torch", _torch)):
            start = time.perf_counter()
            accuracy = train(setup)
            seconds = time.perf_counter() - start
            found[name].append({"seed": seed, "accuracy": accuracy, "seconds": seconds})
            print(f"seed {seed} {name}: {accuracy:.2%} in {seconds:.0f} s", flush=True)  # noqa: T201
    means = {name: statistics.mean(entry["accuracy"] for entry in entries) for name, entries in found.items()}
    print(f"means: jax {means['jax']:.2%}, torch {means['torch']:.2%}")  # noqa: T201
    if output is not None:
        output.write_text(json.dumps(found, indent=2) + "\n")


def _jax(setup: Setup) -> float:
    with tempfile.TemporaryDirectory() as folder:
        scores = run(setup, Path(folder) / "run").scores
    if scores is None:
        raise RuntimeError("the digits have validation images")
    return scores.metrics()["accuracy"]


def _torch(setup: Setup) -> float:
    """AdamW, a half cosine after a rise, clipping and smoothed targets, with PyTorch's own classes."""
    o = setup.options
    optimizer_options, schedule = o.recipe.optimizer, o.recipe.schedule
    assert schedule.peak is not None
    warmup = int(schedule.warmup)
    first = {path: np.asarray(array) for path, array in jax.device_get(setup.first_state()).params.items()}
    checkpoint = conversion.Checkpoint.of(setup.model, conversion.from_flax(first), setup.preprocessing)
    torch.manual_seed(o.seed)
    model = vit_torch.create_model(weights=checkpoint, drop_path_rate=setup.model.drop_path_rate).train()
    decayed = [p for name, p in model.named_parameters() if name.endswith("weight") and p.ndim > 1]
    others = [p for name, p in model.named_parameters() if not (name.endswith("weight") and p.ndim > 1)]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": optimizer_options.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=schedule.peak, betas=(optimizer_options.beta1, optimizer_options.beta2), eps=optimizer_options.epsilon,
    )  # fmt: skip
    rise = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(step / warmup, 1.0))
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, setup.steps - warmup)
    both = torch.optim.lr_scheduler.SequentialLR(optimizer, [rise, fall], [warmup])
    loss = torch.nn.CrossEntropyLoss(label_smoothing=o.recipe.loss.smoothing)
    batches = Stream(
        setup.train, o.data, setup.preprocessing, batch=o.batch, rows=range(o.batch), seed=o.seed
    )  # fmt: skip
    with batches:
        for _ in range(setup.steps):
            batch = next(batches)
            optimizer.zero_grad()
            loss(model(_pixels(setup, batch["image"])), torch.from_numpy(batch["label"]).long()).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), optimizer_options.clip_norm or float("inf"))
            optimizer.step()
            both.step()
    return _accuracy(setup, model.eval())


def _accuracy(setup: Setup, model: torch.nn.Module) -> float:
    assert setup.validation is not None
    right = count = 0
    with evaluation_batches(setup.validation, setup.preprocessing, batch=setup.options.batch) as batches:
        for batch in batches:
            with torch.no_grad():
                predicted = model(_pixels(setup, batch["image"])).argmax(dim=1).numpy()
            real = batch["weight"] > 0
            right += int((predicted == batch["label"])[real].sum())
            count += int(real.sum())
    return right / count


def _pixels(setup: Setup, images: np.ndarray) -> torch.Tensor:
    mean, std = (np.array(values, np.float32) for values in (setup.preprocessing.mean, setup.preprocessing.std))
    return torch.from_numpy((images.astype(np.float32) / 255 - mean) / std).permute(0, 3, 1, 2)


if __name__ == "__main__":
    tyro.cli(main)
