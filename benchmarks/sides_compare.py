"""The sides of the case ``compare``: a comparison of two runs, and the forward passes that it needs by themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.side import Side, resident_memory
from benchmarks.subject import Subject


def comparison(subject: Mapping[str, Any], memory: float = 1.0) -> Side:
    """PyTorch against JAX in float32 with the truth in float64, all activations; with causes; with a report."""
    from vit_parity.compare import measure
    from vit_parity.endpoints import endpoint_flow, parse_endpoint
    from vit_parity.report import extras_of, report_html
    from vit_parity.runs import Runs, Side

    of = Subject(**subject)
    checkpoint, images = of.checkpoint(), of.images(1)
    ends = [parse_endpoint(f"{kind}:weights") for kind in ("torch", "jax")]
    flows = tuple(endpoint_flow(end, checkpoint, images, "float32") for end in ends)
    sides = tuple(Side(end, checkpoint) for end in ends)
    runs = Runs(sides, flows, images, "numbers", "float32", lambda *_: checkpoint)

    def alone(_: int) -> None:
        measure(runs, memory=memory)

    def explained(_: int) -> None:
        measure(runs, explain=True, memory=memory)

    def reported(_: int) -> None:
        found = measure(runs, explain=True, depths=True, memory=memory)
        extras = extras_of(found)
        assert extras is not None
        report_html(found.comparison, extras)

    parts: dict[str, Callable[[int], None]] = {"compare": alone, "explain": explained, "report": reported}
    return _side(parts)


def forward(subject: Mapping[str, Any]) -> Side:
    """What the comparison runs, without keeping anything: models are built, and called.

    Both frameworks in float32 and in float64, and once more in float64 for the bounds on rounding, by PyTorch; for
    causes once in float64 for each run; for a report in bfloat16 and float16, and once in float64 for each's bound.
    """
    import jax
    import numpy as np
    import torch

    from vit_parity.frameworks import jax_dtype, jax_model, torch_images, torch_model

    of = Subject(**subject)
    checkpoint, images = of.checkpoint(), of.images(1)

    def in_torch(dtype: str) -> None:
        model = torch_model(checkpoint, dtype)
        with torch.no_grad():
            model(torch_images(images, next(model.parameters())))

    def in_jax(dtype: str) -> None:
        with jax_dtype(dtype), jax.default_matmul_precision("highest"):
            model = jax_model(checkpoint, dtype)
            graph, state = nnx.split(model)
            run = jax.jit(lambda state, x: nnx.merge(graph, state)(x))
            np.asarray(run(state, jax.numpy.asarray(images, model.dtype)))

    from flax import nnx

    def compared(_: int) -> None:
        for run in (in_torch, in_jax):
            for dtype in ("float32", "float64"):
                run(dtype)
        in_torch("float64")

    def explained(count: int) -> None:
        compared(count)
        for _ in range(2):
            in_torch("float64")

    def reported(count: int) -> None:
        explained(count)
        for dtype in ("bfloat16", "float16"):
            in_jax(dtype)
            in_torch("float64")

    parts: dict[str, Callable[[int], None]] = {"compare": compared, "explain": explained, "report": reported}
    return _side(parts)


def _side(parts: Mapping[str, Callable[[int], None]]) -> Side:
    """The libraries run once, so that their own memory is there before anything is measured."""
    import jax
    import torch

    jax.block_until_ready(jax.numpy.ones((256, 256)) @ jax.numpy.ones((256, 256)))
    torch.matmul(torch.ones(256, 256), torch.ones(256, 256))
    return Side(parts, facts={"resident": resident_memory()})
