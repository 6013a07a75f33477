"""Eight small programs compiled for TPUs, each in some four seconds: prints what each costs, by name, as JSON.

A process of its own: what libtpu sets up when it is loaded stays away from the tests.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from vit_jax.training.ahead.compile import Compiled, compile_ahead, compile_inference_ahead
from vit_jax.training.ahead.report import values
from vit_jax.training.ahead.roofline import roofline
from vit_jax.training.ahead.topology import describe, prepare_environment
from vit_jax.training.recipe.config import ModelOptions, TrainConfig
from vit_jax.training.recipe.execution import AttentionKind, MeshShape

DIGITS = Path(__file__).parents[4] / "vit_cli" / "assets" / "digits_vit.safetensors"
WIDTH, HIDDEN, DEPTH, HEADS, SIZE, CLASSES, BATCH = 128, 512, 2, 4, 32, 10, 64


def main() -> None:
    prepare_environment()
    made = {
        "data and fsdp": _step(mesh=MeshShape(2, 2, 1)),
        "data and fsdp, v6e": _step("v6e:2x2", mesh=MeshShape(2, 2, 1), remat="full"),
        "data": _step(mesh=MeshShape(4, 1, 1)),
        "data and tensor": _step(mesh=MeshShape(2, 1, 2)),
        "data, fsdp and tensor": _step("v5e:2x4", mesh=MeshShape(2, 2, 2)),
        "pmap": _step(parallel="pmap"),
        "inference": _inference(),
        "flash": _step(mesh=MeshShape(2, 2, 1), attention="flash"),
    }
    costs = {name: values(found, roofline(found)) | {"by head": _by_head(found)} for name, found in made.items()}
    json.dump(costs, sys.stdout)


def _by_head(found: Compiled) -> int:
    """How often the program makes queries, keys, values or heads (…, N, d), or attention weights (…, N, N)."""
    tokens = (SIZE // 16) ** 2 + 1
    forms = [sorted((tokens, size)) for size in (WIDTH // HEADS, tokens)]
    made = [array for _, one, _ in found.program.executed() for array in one.arrays]
    return sum(len(array.shape) > 3 and sorted(array.shape[-2:]) in forms for array in made)


def _step(topology: str = "v5e:2x2", attention: AttentionKind = "fused", **options: Any) -> Compiled:
    model = ModelOptions("vit_tiny_patch16_224", embed_dim=WIDTH, depth=DEPTH, num_heads=HEADS, image_size=SIZE)
    run = TrainConfig(model, batch=BATCH, steps=10, precision="bfloat16", attention=attention, **options)
    return compile_ahead(run, describe(topology), CLASSES)


def _inference() -> Compiled:
    import conversion

    return compile_inference_ahead(conversion.load(DIGITS), describe("v5e:2x2"), BATCH)


if __name__ == "__main__":
    main()
