"""A model as a pure function of a flat dictionary of parameters, for training and for evaluation."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any, get_args

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import DTypeLike

from vit_jax.layers.drop_path import DropPath
from vit_jax.layers.dropout import ImageRngs
from vit_jax.layers.xla.packed import FSDP
from vit_jax.pure import Params, Pure
from vit_jax.training.devices.sharding import BATCH, partition
from vit_jax.training.recipe.execution import Remat
from vit_jax.training.step.losses import Logits
from vit_jax.training.step.optimizer import is_kernel
from vit_jax.training.step.stacked import STACKED
from vit_jax.vit.vision_transformer import VisionTransformer
from vit_spec import VitportError

_POLICIES: dict[Remat, Callable[..., bool] | None] = {
    "none": None,
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_saveable,
    "dots_no_batch": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


class Forward:
    """A model in training mode as a function of a flat dictionary of parameters, cheap to dispatch.

    Args:
        model: gives its config, its dtypes and its parameters' names; it is left in training mode.
        remat: what is computed again in the backward pass.
        scan: run the blocks as one ``jax.lax.scan``, compiled once for all of them, over parameters that
            :func:`vit_jax.training.step.stacked.stack` has stacked. Random numbers and results are those of the loop.
    """

    def __init__(self, model: VisionTransformer, *, remat: Remat = "auto", scan: bool = False) -> None:
        if remat not in get_args(Remat):
            raise VitportError(f"remat={remat!r} is unknown: choose one of {', '.join(get_args(Remat))}.")
        model.train()
        c = self.config = model.config
        # The blocks differ by nothing but their rates of stochastic depth, which _run_block is told.
        self._block = Pure(model.blocks[0])
        blocks, model.blocks = model.blocks, nnx.List()
        self._around = Pure(model)
        model.blocks = blocks
        self.random = any((c.drop_rate, c.attn_drop_rate, c.drop_path_rate))
        self.scan = scan
        self.dtype = model.dtype
        self.remat: Remat = remat
        self.mesh: Mesh | None = None

    @property
    def on_one_cpu(self) -> bool:
        """Whether it is part of a step on a single CPU device."""
        return self.mesh is not None and self.mesh.size == 1 and jax.default_backend() == "cpu"

    @property
    def cut_by_fsdp(self) -> bool:
        """Whether FSDP cuts the parameters, which are gathered where they are used."""
        return self.mesh is not None and self.mesh.shape[FSDP] > 1

    def on_mesh(self, mesh: Mesh) -> Forward:
        """The same over a mesh; with FSDP, tokens lie on the devices of their pictures between all blocks.

        FSDP cuts a head of fewer classes than the model is wide along the width; XLA would have the backward pass cut
        tokens so too, and move all of them in every block.
        """
        forward = copy.copy(self)
        forward.mesh = mesh
        return forward

    def __call__(self, params: Params, images: jax.Array, keys: jax.Array | None) -> Logits:
        """(B, H, W, C) -> logits in training mode.

        Args:
            keys: (B,), one for each picture, so that its dropout does not depend on which pictures are with it, nor on
                which device; ``None`` where nothing is random.
        """
        around: VisionTransformer = self._around(params)
        depth = self.config.depth
        if keys is not None:  # (depth + 1, B)
            keys = jax.vmap(lambda key: jax.random.split(key, depth + 1), out_axes=1)(keys)
        rates = jnp.asarray(self.config.drop_path_rates, jnp.float32) if self.config.drop_path_rate else None
        x = around.embed(images, rngs=None if keys is None else ImageRngs(keys[depth]))
        run = self._runner()
        per_block = (None if rates is None else rates, None if keys is None else keys[:depth])
        if self.scan:
            stacked = {path: params[STACKED + path] for path in self._block.paths}
            x, _ = jax.lax.scan(lambda x, block: (run(x, *block), None), x, (stacked, *per_block))
        else:
            run = jax.jit(run)  # so that it is traced once for all blocks
            for at in range(depth):
                own = {path: params[f"blocks/{at}/{path}"] for path in self._block.paths}
                x = run(x, own, *(None if each is None else each[at] for each in per_block))
        return around.forward_head(around.norm(x))

    def _remat(self) -> Remat:
        if self.remat != "auto":
            return self.remat
        drops = self.config.drop_rate > 0 or self.config.attn_drop_rate > 0
        return "dots_no_batch" if self.on_one_cpu and not drops else "none"

    def _runner(self) -> Callable[..., jax.Array]:
        """From tokens and one block's parameters, rate and keys to its tokens."""
        policy = _POLICIES[self._remat()]
        if self.mesh is None or not self.cut_by_fsdp:
            alone = partial(_run_block, self._block)
            return alone if policy is None else jax.checkpoint(alone, policy=policy)
        keep = partial(jax.lax.with_sharding_constraint, shardings=NamedSharding(self.mesh, BATCH))
        gather = partial(_gathered, self.mesh, self.dtype) if self.scan else dict
        if self.scan and policy is None:
            policy = _all_but_weights(self._block)

        def gathering(x: jax.Array, params: Params, *random: jax.Array | None) -> jax.Array:
            return _run_block(self._block, x, gather(params), *random)

        run = gathering if policy is None else jax.checkpoint(gathering, policy=policy)
        return lambda x, *block: keep(run(keep(x), *block))


def _gathered(mesh: Mesh, dtype: DTypeLike, block: Params) -> Params:
    """What FSDP cuts of one block, whole: in a scan XLA would cut the block's activations as its weights are.

    Kernels in the dtype that the block computes in, to which it would cast them only then.
    """
    found = {}
    for path, x in block.items():
        x = x.astype(dtype) if is_kernel(path) else x
        cut = partition(f"blocks/0/{path}", x.shape, mesh)
        whole = PartitionSpec(*(None if axis == FSDP else axis for axis in cut))
        found[path] = jax.lax.with_sharding_constraint(x, NamedSharding(mesh, whole))
    return found


def _all_but_weights(block: Pure) -> Callable[..., bool]:
    """A policy of what is kept: weights are gathered anew in the backward pass, else all would be held whole."""
    shapes = set(block.shapes)

    def saveable(primitive: Any, *operands: Any, **_: Any) -> bool:
        moves = primitive.name in ("sharding_constraint", "convert_element_type")
        return not (moves and operands[0].shape in shapes)

    return saveable


def _run_block(pure: Pure, x: jax.Array, params: Params, rate: jax.Array | None, keys: jax.Array | None) -> jax.Array:
    """(B, N, D) -> (B, N, D), with a rate of stochastic depth of its own, and (B,) keys."""
    block: Callable[..., jax.Array] = pure(params)
    if rate is not None:
        for _, module in nnx.iter_modules(block):  # type: ignore[arg-type]
            if isinstance(module, DropPath):
                module.rate = rate  # type: ignore[assignment]  # traced, one for each block
    return block(x, rngs=None if keys is None else ImageRngs(keys))
