"""A model as a pure function of a flat dictionary of parameters, for training and for evaluation."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any, get_args

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from vit_jax.layers.drop_path import DropPath
from vit_jax.layers.dropout import ImageRngs
from vit_jax.layers.xla.axes import DATA, FSDP, TENSOR
from vit_jax.layers.xla.platform import platform_of
from vit_jax.model import VisionModel
from vit_jax.params import parameters_by_path
from vit_jax.pure import Params, Pure
from vit_jax.training.recipe.execution import Precision, Remat
from vit_jax.training.step.gathered import Gather, all_but_weights, keep_images
from vit_jax.training.step.gathered_tensor import GatherByCompiler
from vit_jax.training.step.losses import Logits
from vit_jax.training.step.stacked import single_path, stacked_path
from vit_spec import Parameter, Segment, VitportError, segments

_POLICIES: dict[Remat, Callable[..., bool] | None] = {
    "none": None,
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_saveable,
    "dots_no_batch": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


class Forward:
    """A model in training mode as a function of a flat dictionary of parameters, cheap to dispatch.

    Args:
        model: gives its config, its dtypes and the names of its parameters. It is left in training mode.
        remat: what the backward pass recomputes.
        scan: run each segment's blocks as one ``jax.lax.scan``, compiled once for all of them, over parameters stacked
            by :func:`vit_jax.training.step.stacked.stack`. Random numbers and results are those of the loop.
        gradient_sum: dtype in which the devices of a mesh sum gradients of a bfloat16 computation.
    """

    def __init__(
        self, model: VisionModel, *, remat: Remat = "auto", scan: bool = False, gradient_sum: Precision = "bfloat16"
    ) -> None:
        if remat not in get_args(Remat):
            raise VitportError(f"remat={remat!r} is unknown: choose one of {', '.join(get_args(Remat))}.")
        model.train()
        c = self.config = model.config
        self.segments = segments(c)
        held = {segment.prefix: _held(model, segment.prefix) for segment in self.segments}
        # Blocks a period apart differ only in their rates of stochastic depth, which are arguments of _run_block.
        self._blocks = [
            [Pure(getattr(*held[segment.prefix])[at]) for at in range(segment.period)] for segment in self.segments
        ]
        taken = {prefix: getattr(*place) for prefix, place in held.items()}
        for holder, name in held.values():
            setattr(holder, name, nnx.List())
        self._around = Pure(model)
        for prefix, (holder, name) in held.items():
            setattr(holder, name, taken[prefix])
        self.random = any((c.drop_rate, c.attn_drop_rate, c.drop_path_rate))
        self.scan = scan
        self.dtype = model.dtype
        self.remat: Remat = remat
        self.gradient_sum: Precision = gradient_sum
        self.mesh: Mesh | None = None
        self.gather: Gather | GatherByCompiler | None = None
        """How parameters get to where they are used, if not by XLA alone."""

    @property
    def on_one_cpu(self) -> bool:
        """Whether it is part of a step on a single CPU device."""
        return self.mesh is not None and self.mesh.size == 1 and platform_of(self.mesh) == "cpu"

    @property
    def cut_by_fsdp(self) -> bool:
        """Whether FSDP shards the parameters, which are then gathered where they are used."""
        return self.mesh is not None and self.mesh.shape[FSDP] > 1

    def on_mesh(self, mesh: Mesh) -> Forward:
        """The same over a mesh. With FSDP, tokens stay on the devices of their images between all blocks.

        FSDP shards a head with fewer classes than channels along the channels. XLA would shard tokens alike in the
        backward pass, and move all of them in every block.
        """
        forward = copy.copy(self)
        forward.mesh = mesh
        narrow = jnp.dtype(self.dtype).itemsize < jnp.dtype(self.gradient_sum).itemsize
        wide = narrow and mesh.shape[DATA] * mesh.shape[FSDP] > 1
        if wide or (self.scan and forward.cut_by_fsdp):
            kind = Gather if mesh.shape[TENSOR] == 1 else GatherByCompiler
            forward.gather = kind(mesh, self.dtype, wide)
        return forward

    def __call__(self, params: Params, images: jax.Array, keys: jax.Array | None) -> Logits:
        """(B, H, W, C) -> logits in training mode.

        Args:
            keys: (B,), one for each image, so that an image's dropout depends neither on its batch nor on its device;
                ``None`` if nothing is random.
        """
        around = self._outside(params)
        depth = sum(segment.count for segment in self.segments)
        if keys is not None:  # (depth + 1, B)
            keys = jax.vmap(lambda key: jax.random.split(key, depth + 1), out_axes=1)(keys)
        rates = self.config.drop_path_rates if self.config.drop_path_rate else None
        x = around(_embed, images, None if keys is None else keys[depth])
        first = 0
        for at, (segment, blocks) in enumerate(zip(self.segments, self._blocks, strict=True)):
            x = around(lambda model, x, _, at=at: model.enter(at, x), x)
            own = slice(first, first + segment.count)
            per_block = (
                None if rates is None else jnp.asarray(rates[own], jnp.float32),
                None if keys is None else keys[own],
            )
            runners = [self._runner(segment, block) for block in blocks]
            x = (_scanned if self.scan else _looped)(segment, blocks, runners, params, x, per_block)
            first += segment.count
        return around(lambda model, x, _: model.forward_head(model.norm(x)), x)

    def _outside(self, params: Params) -> _Around:
        """What is outside blocks, with these parameters."""
        gather = self.gather
        if gather is None or not gather.outside:
            model = self._around(params)
            return lambda part, x, keys=None: part(model, x, keys)
        known = {path: parameters_by_path(self.config)[path] for path in self._around.paths}
        own = {path: params[path] for path in self._around.paths}

        def around(part: _Part, x: jax.Array, keys: jax.Array | None = None) -> Any:
            return gather.run(lambda own, x, keys: part(self._around(own), x, keys), known, own, x, keys)

        return around

    @property
    def chosen_remat(self) -> Remat:
        """What ``auto`` is on this mesh, or what was asked for."""
        drops = self.config.drop_rate > 0 or self.config.attn_drop_rate > 0
        if self.remat != "auto":
            return self.remat
        if self.on_one_cpu and not drops:
            return "dots_no_batch"
        on_accelerator = self.mesh is not None and platform_of(self.mesh) != "cpu"
        return "dots" if on_accelerator and self.scan and not drops else "none"

    def _runner(self, segment: Segment, block: Pure) -> _Runner:
        policy = _POLICIES[self.chosen_remat]
        run: _Runner = partial(_run_block, block)
        if self.gather is not None:
            known = {path: parameters_by_path(self.config)[single_path(segment, 0, path)] for path in block.paths}
            run = partial(_run_gathered, block, self.gather, known)
            if self.cut_by_fsdp:
                policy = policy or all_but_weights(block.shapes)
        run = run if policy is None else jax.checkpoint(run, policy=policy)
        if self.mesh is None or not self.cut_by_fsdp or isinstance(self.gather, Gather):
            return run
        keep = partial(keep_images, self.mesh)
        return lambda x, *block: keep(run(keep(x), *block))


_Runner = Callable[..., jax.Array]
"""From tokens and one block's parameters, rate of stochastic depth and keys to its tokens."""
_PerBlock = tuple[jax.Array | None, jax.Array | None]
"""Rates and keys of a segment's blocks, along axis 0."""
_Part = Callable[[VisionModel, jax.Array, jax.Array | None], Any]
"""From a model without blocks, an array for each image and keys to arrays for each image."""
_Around = Callable[..., Any]
"""Runs a :data:`_Part` on an array and keys."""


def _embed(model: VisionModel, images: jax.Array, keys: jax.Array | None) -> jax.Array:
    return model.embed(images, rngs=None if keys is None else ImageRngs(keys))


def _held(model: nnx.Module, prefix: str) -> tuple[Any, str]:
    """The module that holds a segment's blocks, and under which name."""
    *parents, name = prefix.split(".")
    holder: Any = model
    for part in parents:
        holder = holder[int(part)] if part.isdigit() else getattr(holder, part)
    return holder, name


def _looped(
    segment: Segment, blocks: list[Pure], runners: list[_Runner], params: Params, x: jax.Array, per_block: _PerBlock
) -> jax.Array:
    runners = [jax.jit(run) for run in runners]  # so that each is traced once for all its blocks
    for at in range(segment.count):
        turn = at % segment.period
        own = {path: params[single_path(segment, at, path)] for path in blocks[turn].paths}
        x = runners[turn](x, own, *(None if each is None else each[at] for each in per_block))
    return x


def _scanned(
    segment: Segment, blocks: list[Pure], runners: list[_Runner], params: Params, x: jax.Array, per_block: _PerBlock
) -> jax.Array:
    stacked = {path: params[stacked_path(segment, path)] for path in blocks[0].paths}
    xs = (stacked, *per_block)
    if segment.period == 1:
        return jax.lax.scan(lambda x, block: (runners[0](x, *block), None), x, xs)[0]

    def body(x: jax.Array, period: Any) -> tuple[jax.Array, None]:
        for at, run in enumerate(runners):
            x = run(x, *jax.tree.map(lambda each, at=at: each[at], period))
        return x, None

    return jax.lax.scan(body, x, jax.tree.map(lambda each: each.reshape(-1, segment.period, *each.shape[1:]), xs))[0]


def _run_gathered(
    pure: Pure,
    gather: Gather | GatherByCompiler,
    known: dict[str, Parameter],
    x: jax.Array,
    params: Params,
    rate: jax.Array | None,
    keys: jax.Array | None,
) -> jax.Array:
    """:func:`_run_block` with its parameters gathered first: in a scan XLA would shard its activations like its
    weights."""
    return gather.run(lambda own, x, keys, rate: _run_block(pure, x, own, rate, keys), known, params, x, keys, rate)


def _run_block(pure: Pure, x: jax.Array, params: Params, rate: jax.Array | None, keys: jax.Array | None) -> jax.Array:
    """(B, N, D) -> (B, N, D), with its own rate of stochastic depth, and keys (B,)."""
    block: Callable[..., jax.Array] = pure(params)
    if rate is not None:
        for _, module in nnx.iter_modules(block):  # type: ignore[arg-type]
            if isinstance(module, DropPath):
                module.rate = rate  # type: ignore[assignment]  # traced, one for each block
    return block(x, rngs=None if keys is None else ImageRngs(keys))
