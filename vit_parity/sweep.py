"""One model run in every way: its error against float64, and whether it repeats bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vit_parity.frameworks import jax_model, torch_array, torch_model
from vit_parity.measure import relative

if TYPE_CHECKING:
    from conversion import Checkpoint

Attention = Literal["explicit", "fused"]
"""``explicit`` is the models' default; ``fused`` is ``attend_fused`` of each package."""


@dataclass(frozen=True)
class Case:
    """One way of running the model."""

    framework: Literal["torch", "jax"]
    dtype: str = "float32"
    precision: str = "highest"
    """Of float32 products: ``highest``, ``high`` or ``medium`` in torch; ``highest``, ``high`` or ``default`` in JAX;
    on a CPU they may all be the same."""
    attention: Attention = "explicit"
    jit: bool = True
    """JAX only: compiled as one function, or operation by operation."""
    threads: int = 0
    """PyTorch only; 0 keeps the current number."""


@dataclass(frozen=True)
class Result:
    """What one case measured."""

    case: Case
    error: float
    """Relative L2 distance of the output from float64."""
    repeats: bool
    """Whether a second run gave the same bits."""
    alone: float
    """Largest relative L2 distance between an image's output in the batch and alone; 0 means equal bit for bit."""
    moved: float
    """The same between an image's output at its place in the batch and at another."""
    refused: str = ""
    """The framework's message if it does not run this case; the numbers are NaN then."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        told = ("error", "repeats", "alone", "moved", "refused")
        return asdict(self.case) | {name: getattr(self, name) for name in told}


def one_at_a_time(dtypes: Sequence[str] = ("float32", "bfloat16", "float16")) -> Iterator[Case]:
    """For each framework and dtype: the default settings, then each setting changed alone."""
    for dtype in dtypes:
        yield from (Case("torch", dtype), Case("torch", dtype, attention="fused"), Case("torch", dtype, threads=1))
        if dtype == "float32":
            yield from (Case("torch", dtype, precision) for precision in ("high", "medium"))
        yield from (Case("jax", dtype), Case("jax", dtype, attention="fused"), Case("jax", dtype, jit=False))
        if dtype == "float32":
            yield from (Case("jax", dtype, precision) for precision in ("high", "default"))


def all_cases(dtypes: Sequence[str] = ("float32", "bfloat16", "float16")) -> Iterator[Case]:
    """Every combination."""
    kinds: tuple[Attention, ...] = ("explicit", "fused")
    for dtype, precision, attention, threads in product(dtypes, ("highest", "high", "medium"), kinds, (0, 1)):
        yield Case("torch", dtype, precision, attention, threads=threads)
    for dtype, precision, attention, jit in product(dtypes, ("highest", "high", "default"), kinds, (True, False)):
        yield Case("jax", dtype, precision, attention, jit)


def sweep(checkpoint: Checkpoint, images: np.ndarray, cases: Sequence[Case]) -> list[Result]:
    """Run every case on the whole batch, again, image by image, and with the batch reversed.

    Args:
        checkpoint: the weights.
        images: (B, H, W, C), preprocessed, of at least two images.
        cases: the ways to run it.
    """
    truth = _torch_runner(checkpoint, Case("torch", "float64"))(images.astype(np.float64))
    return [_result(checkpoint, images, truth, case) for case in cases]


def _result(checkpoint: Checkpoint, images: np.ndarray, truth: np.ndarray, case: Case) -> Result:
    try:
        run = (_torch_runner if case.framework == "torch" else _jax_runner)(checkpoint, case)
        answer, again = run(images), run(images)
        single = [run(images[at : at + 1])[0] for at in range(len(images))]
        turned = run(np.ascontiguousarray(images[::-1]))[::-1]
    except Exception as error:  # kernels that are missing on a device raise many types
        return Result(case, np.nan, False, np.nan, np.nan, " ".join(str(error).split()) or type(error).__name__)
    return Result(
        case,
        error=relative(answer, truth),
        repeats=answer.tobytes() == again.tobytes(),
        alone=max(relative(row, alone.astype(np.float64)) for row, alone in zip(answer, single, strict=True)),
        moved=max(relative(row, other.astype(np.float64)) for row, other in zip(answer, turned, strict=True)),
    )


Runner = Callable[[np.ndarray], np.ndarray]
"""Images (B, H, W, C) to outputs (B, K)."""


def _torch_runner(checkpoint: Checkpoint, case: Case) -> Runner:
    import torch

    import vit_torch

    kind = getattr(torch, case.dtype)
    model = torch_model(checkpoint, case.dtype, attn_drop_rate=0.0)
    if case.attention == "fused":
        vit_torch.set_attention(model, vit_torch.attend_fused)

    def run(images: np.ndarray) -> np.ndarray:
        threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
        try:
            torch.set_num_threads(case.threads or threads)
            torch.set_float32_matmul_precision(case.precision)
            with torch.no_grad():
                return torch_array(model(torch.tensor(images, dtype=kind).permute(0, 3, 1, 2)))
        finally:
            torch.set_num_threads(threads)
            torch.set_float32_matmul_precision(precision)

    return run


def _jax_runner(checkpoint: Checkpoint, case: Case) -> Runner:
    import jax
    from flax import nnx

    import vit_jax

    model = jax_model(checkpoint, case.dtype, attn_drop_rate=0.0)
    if case.attention == "fused":
        vit_jax.set_attention(model, vit_jax.attend_fused)
    graph, state = nnx.split(model)

    def forward(state: Any, images: Any) -> Any:
        return nnx.merge(graph, state)(images)

    compiled = jax.jit(forward) if case.jit else forward

    def run(images: np.ndarray) -> np.ndarray:
        with jax.default_matmul_precision(case.precision):
            return np.asarray(compiled(state, jax.numpy.asarray(images, case.dtype)))

    return run
