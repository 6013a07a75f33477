"""Our sides, in JAX, and the plain matrix products that they are compared with."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import conversion
import vit_jax
from benchmarks.side import BEGUN, Side, UnavailableError, resident_memory, threads
from benchmarks.subject import PEAK_RATE, WEIGHT_DECAY, Subject, product_shapes
from vit_jax import training
from vit_jax.families import make_model
from vit_jax.inference import compile_inference, offer_cores
from vit_jax.inference.compile import attend_forward
from vit_jax.layers.attention import ATTENTION, set_attention
from vit_jax.training.recipe.presets import get_preset
from vit_jax.training.run.loop import run as training_run
from vit_jax.training.run.monitor import peak_flops
from vit_jax.training.run.setup import set_up
from vit_jax.training.step.losses import Loss
from vit_jax.training.step.optimizer import make_optimizer, make_schedule
from vit_spec import Preprocessing


def inference(
    subject: Mapping[str, Any],
    batches: Sequence[int],
    dtype: str = "float32",
    tf32: bool | None = None,
    attention: str | None = None,
) -> Side:
    """A forward pass as `vitport evaluate` makes it; each batch size is a part of that name.

    Args:
        subject: the fields of a ``Subject``.
        batches: images in a batch.
        dtype: of computation and parameters.
        tf32: whether float32 products may be taken in TensorFloat-32; ``None`` leaves it to JAX.
        attention: a name of ``vit_jax.layers.attention.ATTENTION``; ``None`` leaves it to ``compile_inference``.
    """
    offer_cores()
    if tf32 is not None:
        jax.config.update("jax_default_matmul_precision", "tensorfloat32" if tf32 else "highest")
    what = Subject(**subject)
    model = vit_jax.create_model(weights=what.checkpoint(), dtype=dtype, param_dtype=dtype)
    kernel = attend_forward if attention is None else ATTENTION[attention]
    forwards = {batch: compile_inference(model, batch, attend=kernel) for batch in batches}
    images = {batch: forwards[batch].place(jnp.asarray(what.images(batch), dtype)) for batch in batches}

    def runs(batch: int) -> Callable[[int], None]:
        def run(count: int) -> None:
            _repeat(lambda: forwards[batch](images[batch]), count)

        return run

    def answers() -> dict[str, np.ndarray]:
        least = min(batches)
        return {"logits": np.asarray(forwards[least](images[least]), np.float32)}

    return Side({str(batch): runs(batch) for batch in batches}, answers, _facts())


def products(subject: Mapping[str, Any], batches: Sequence[int]) -> Side:
    """The model's linear layers as bare matrix products under ``jit``, parts called ``BATCH LAYER``."""
    parts: dict[str, Callable[[int], None]] = {}
    product = jax.jit(jnp.matmul)
    rng = np.random.default_rng(0)
    for batch in batches:
        for layer, (M, K, N) in product_shapes(Subject(**subject).config, batch).items():
            a, b = (jnp.asarray(rng.standard_normal(shape, np.float32)) for shape in ((M, K), (K, N)))

            def run(count: int, a: jax.Array = a, b: jax.Array = b) -> None:
                _repeat(lambda: product(a, b), count)

            parts[f"{batch} {layer}"] = run
    return Side(parts, facts=_facts())


def train(
    subject: Mapping[str, Any],
    batch: int,
    remat: training.Remat = "auto",
    scan: bool = False,
    dtype: str = "float32",
    attention: str = "fused",
    losses: int = 3,
    analyse: bool = False,
) -> Side:
    """The trainer's own step: forward, backward and AdamW over a batch on the device; one part, ``step``.

    Args:
        subject: the fields of a ``Subject``.
        batch: images.
        remat: what is computed again in the backward pass.
        scan: one compiled block for all.
        dtype: of the computation; parameters and moments are in float32.
        attention: a name of ``vit_jax.layers.attention.ATTENTION``.
        losses: the answers are the losses of so many first steps.
        analyse: compile the step once more and tell the bytes of its temporaries.
    """
    facts = _facts()
    engine, placed, fed = trainer(Subject(**subject), batch, remat, scan, dtype, attention)
    state = [placed]
    if analyse:
        analysis = engine.lower(state[0], fed).compile().memory_analysis()
        facts["temporary"] = getattr(analysis, "temp_size_in_bytes", None)
    seen: list[jax.Array] = []
    calls: list[float] = []

    def run(count: int) -> None:
        metrics: dict[str, jax.Array] = {}
        for _ in range(count):
            start = time.perf_counter()
            state[0], metrics = engine.step(state[0], fed)
            calls.append(time.perf_counter() - start)
            if len(seen) < losses:
                seen.append(metrics["loss"])
        jax.block_until_ready((state[0], metrics))

    def answers() -> dict[str, np.ndarray]:
        run(max(0, losses - len(seen)))
        return {"losses": np.array([float(loss) for loss in seen])}

    return Side({"step": run, BEGUN: lambda count: calls[0] * count}, answers, facts)


def trainer(
    what: Subject, batch: int, remat: training.Remat, scan: bool, dtype: str, attention: str
) -> tuple[training.Engine, Any, Any]:
    """The trainer's engine with AdamW, and on the devices its first state and a batch; arguments as :func:`train`'s."""
    config = what.config
    model = nnx.eval_shape(lambda: make_model(config, rngs=nnx.Rngs(0), dtype=jnp.dtype(dtype)))
    set_attention(model, ATTENTION[attention])
    recipe = training.Recipe(
        training.Optimizer("adamw", weight_decay=WEIGHT_DECAY), training.Schedule("constant", peak=PEAK_RATE), Loss()
    )
    optimizer = make_optimizer(recipe.optimizer, make_schedule(recipe.schedule, 10**6), config)
    engine = training.jit_engine(
        training.Forward(model, remat=remat, scan=scan), optimizer, recipe, Preprocessing(),
        training.make_mesh(training.MeshShape()), jax.random.key(0),
    )  # fmt: skip
    params = {path: jnp.array(x, copy=True) for path, x in conversion.to_flax(what.checkpoint().params).items()}
    state = engine.place_state(training.init_state(params, optimizer, recipe))
    rows = {"image": what.images(batch), "label": what.labels(batch), "index": np.arange(batch, dtype=np.uint32)}
    return engine, state, engine.place_batch(rows | {"weight": np.ones(batch, np.float32)})


def attention(shape: Sequence[int], implementation: str, dtype: str = "bfloat16") -> Side:
    """The bare attention of all heads; parts ``forward`` and ``backward``, which has both.

    Args:
        shape: (B, N, h, d).
        implementation: ``xla`` is that of ``jax.nn.dot_product_attention``; else a name of
            ``vit_jax.layers.attention.ATTENTION``.
        dtype: of queries, keys and values.
    """
    if implementation == "cudnn" and jax.default_backend() != "gpu":
        raise UnavailableError("cuDNN is on NVIDIA GPUs alone")
    rng = np.random.default_rng(0)
    q, k, v = (jnp.asarray(rng.standard_normal(shape, np.float32), dtype) for _ in range(3))
    scale = shape[-1] ** -0.5

    def forward(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        if implementation != "xla":
            q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))
            return ATTENTION[implementation](q, k, v, scale, lambda weights: weights)
        heads = jax.nn.dot_product_attention(q, k, v, scale=scale, implementation="xla")
        return heads.reshape(*heads.shape[:2], -1)

    gradient = jax.grad(lambda *x: jnp.square(forward(*x).astype(jnp.float32)).sum(), argnums=(0, 1, 2))
    functions: dict[str, Any] = {"forward": jax.jit(forward), "backward": jax.jit(gradient)}

    def runs(function: Any) -> Callable[[int], None]:
        def run(count: int) -> None:
            _repeat(lambda: function(q, k, v), count)

        return run

    def answers() -> dict[str, np.ndarray]:
        found = zip(("q", "k", "v"), functions["backward"](q, k, v), strict=True)
        gradients = {f"gradient of {name}": np.asarray(x, np.float32) for name, x in found}
        return {"heads": np.asarray(functions["forward"](q, k, v), np.float32), **gradients}

    return Side({name: runs(function) for name, function in functions.items()}, answers, _facts())


def digits(epochs: int | None = None) -> Side:
    """The preset ``digits``, trained as ``vitport train`` does; the answer is its accuracy on the test images.

    Args:
        epochs: instead of the preset's.
    """
    config = get_preset("digits").config
    setup = set_up(config if epochs is None else dataclasses.replace(config, epochs=epochs))

    def run(count: int) -> None:
        del count
        with tempfile.TemporaryDirectory() as folder:
            scores = training_run(setup, Path(folder) / "run").scores
        assert scores is not None  # the digits have validation images
        found["accuracy"] = np.array([scores.metrics()["accuracy"]], np.float32)

    found: dict[str, np.ndarray] = {}
    return Side({"run": run}, lambda: found, _facts())


def _repeat(function: Callable[[], Any], count: int) -> None:
    """To the end of the last run. On a CPU each is waited for: JAX would run them beside each other, PyTorch does not;
    on an accelerator both queue them."""
    each = jax.default_backend() == "cpu"
    for at in range(count):
        result = function()
        if each or at == count - 1:
            jax.block_until_ready(result)


def _facts() -> dict[str, Any]:
    device = jax.devices()[0]
    return {
        "threads": threads(),
        "device": device.device_kind,
        "platform": device.platform,
        "peak": peak_flops(device.device_kind),
        "libraries": resident_memory(),
        "versions": {"jax": jax.__version__, "flax": flax.__version__},
    }
