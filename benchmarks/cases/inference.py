"""Forward passes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from benchmarks.alternate import Bench, Build, Say, Turn, alternate, seconds, twin_of
from benchmarks.cases.case import CPU, EXPLICIT, HUGE, ORDINARY, Case, Outcome, Scale
from benchmarks.measure import Comparison, Measured, faster, summary
from benchmarks.process import Sample
from benchmarks.subject import Subject, product_shapes
from vit_spec import forward_flops

OURS, PRODUCTS = "ours", "JAX's products"
TWIN = twin_of(OURS)
JAX, TORCH, ENGINES = (f"benchmarks.sides_{name}:inference" for name in ("jax", "torch", "engines"))
MINE = {
    OURS: Build(JAX, {}, CPU | HUGE),
    TWIN: Build(JAX, {}, CPU | HUGE),
    PRODUCTS: Build("benchmarks.sides_jax:products", {}, CPU | HUGE),
}
OTHERS = {
    "timm": Build(TORCH, {"library": "timm"}),
    "timm, huge pages": Build(TORCH, {"library": "timm"}, HUGE),
    "timm, torch.compile": Build(TORCH, {"library": "timm", "compiled": True}),
    "transformers": Build(TORCH, {"library": "transformers"}),
    "onnxruntime": Build(ENGINES, {"engine": "onnxruntime"}),
    "OpenVINO": Build(ENGINES, {"engine": "openvino"}),
    "vit_torch": Build(TORCH, {"library": "vit_torch"}),
    EXPLICIT: Build(JAX, {"attention": "explicit"}, CPU | HUGE),
    ORDINARY: Build(JAX, {}, CPU),
    "ours, one device": Build(JAX, {}, CPU | HUGE | {"JAX_NUM_CPU_DEVICES": "1"}),
}
TOLERANCE = 2e-5
"""Relative L2 distance of logits: some 20 times what float32 gives on twelve blocks (docs/reports/timm_coverage.md)."""
WORDS = """Logits of a batch, float32. All sides have the same random weights and images, and their logits are compared
first. Ours is `vit_jax` as `vitport evaluate` runs it: fused attention, huge pages, a batch split over one device per
core while copies of the parameters are small (ViT-Ti and ViT-S; *one device* in ViT-B is ours again), large batches in
microbatches. timm and `transformers` run their default (SDPA), timm also with huge pages. onnxruntime and OpenVINO run
timm's model as torch.onnx exports it for that batch, with all their optimisations, in float32. The last rows of a
batch are, first, our matrix-product operations per second over those of the fastest of the model's own linear layers
as a bare `jnp.matmul` under `jit` on all cores; second, the time of all its linear layers as such bare products over
our whole time, which is what faster code around them could reach."""


def cases() -> list[Case]:
    """One for each model."""
    names = {"ti": "vit_tiny_patch16_224", "s": "vit_small_patch16_224", "b": "vit_base_patch16_224"}
    return [
        Case(f"inference-{short}", f"Inference, ViT-{short.title()}/16", WORDS, partial(run, model))
        for short, model in names.items()
    ]


def run(model: str, scale: Scale, say: Say) -> Outcome:
    """Batches of 1, 8 and 32."""
    subject, batches = scale.subject(model), scale.batches(1, 8, 32)
    told = {"subject": subject, "batches": batches}
    comparisons: list[Comparison] = []
    twins: list[Comparison] = []
    with Bench(say) as bench:
        for name, build in MINE.items():
            bench.build(name, build.told(told))
        others = [name for name, build in OTHERS.items() if bench.build(name, build.told(told))]
        bench.agree(OURS, others, TOLERANCE)
        config = Subject(**subject).config
        for batch in batches:
            turns = [bench.turn(name, str(batch)) for name in (OURS, *others, TWIN)]
            shapes = product_shapes(config, batch)
            parts = [f"{batch} {layer}" for layer in shapes]
            turns += [Turn(part, bench.workers[PRODUCTS], part) for part in parts]
            found = alternate(turns, scale.pace)
            ours = seconds(OURS, found[OURS])
            comparisons += [faster(f"batch {batch}, {name}", ours, seconds(name, found[name])) for name in others]
            twins.append(faster(f"batch {batch}", ours, seconds(TWIN, found[TWIN])))
            operations = {f"{batch} {layer}": 2.0 * M * K * N for layer, (M, K, N) in shapes.items()}
            best = best_product({part: rate(part, found[part], flops) for part, flops in operations.items()})
            achieved = rate(OURS, found[OURS], forward_flops(config) * batch)
            comparisons.append(Comparison(f"batch {batch}, of JAX's best product", achieved, best))
            bare = linear_layers([found[part] for part in parts], config.depth)
            comparisons.append(Comparison(f"batch {batch}, its linear layers alone", bare, ours))
        return Outcome.of(bench, comparisons, twins)


def beside(
    others: Mapping[str, Build], tolerance: float, subject: Mapping[str, Any], scale: Scale, say: Say
) -> Outcome:
    """Batches of 1, 8 and 32 of a model, ours beside others.

    Args:
        others: name of a side → how it is built.
        tolerance: relative L2 distance of logits that all sides must keep.
        subject: the fields of a ``Subject``.
    """
    batches = scale.batches(1, 8, 32)
    told = {"subject": subject, "batches": batches}
    comparisons: list[Comparison] = []
    twins: list[Comparison] = []
    with Bench(say) as bench:
        for name in (OURS, TWIN):
            bench.build(name, MINE[name].told(told))
        names = [name for name, build in others.items() if bench.build(name, build.told(told))]
        bench.agree(OURS, names, tolerance)
        for batch in batches:
            found = alternate([bench.turn(name, str(batch)) for name in (OURS, *names, TWIN)], scale.pace)
            ours = seconds(OURS, found[OURS])
            comparisons += [faster(f"batch {batch}, {name}", ours, seconds(name, found[name])) for name in names]
            twins.append(faster(f"batch {batch}", ours, seconds(TWIN, found[TWIN])))
        return Outcome.of(bench, comparisons, twins)


def rate(name: str, samples: list[Sample], operations: float) -> Measured:
    """Operations per second of each round."""
    return Measured(name, "GFLOP/s", tuple(operations / sample.seconds / 1e9 for sample in samples))


def linear_layers(products: Sequence[Sequence[Sample]], blocks: int) -> Measured:
    """The time of each round that all linear layers of so many blocks take as bare products, one after the other."""
    rounds = zip(*products, strict=True)
    return Measured("bare products", "s", tuple(blocks * sum(sample.seconds for sample in each) for each in rounds))


def best_product(products: dict[str, Measured]) -> Measured:
    """The one of the largest median."""
    best = max(products.values(), key=lambda product: summary(product.values).median)
    return Measured(f"product of {best.name.partition(' ')[2]}", best.unit, best.values)
