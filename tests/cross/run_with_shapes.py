"""Both models, run where an import hook checks every annotated shape: by ``test_shapes.py``, in its own process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import torch
from flax import nnx
from jaxtyping import TypeCheckError

import vit_jax
import vit_torch
from tests.small_configs import BASE, CONFIGS
from vit_spec import ViTConfig

RATES = {"drop_rate": 0.1, "attn_drop_rate": 0.1, "drop_path_rate": 0.1}


def run_torch(config: ViTConfig, dtype: torch.dtype) -> None:
    """In training mode, then in evaluation mode with fused attention; without values, on the meta device."""
    with torch.device("meta"):
        model = vit_torch.VisionTransformer(config.replace(**RATES)).to(dtype)
        images = torch.zeros(2, config.in_channels, *config.image_size, dtype=dtype)
        model(images)
        model = vit_torch.VisionTransformer(config).to(dtype).eval()
        vit_torch.set_attention(model, vit_torch.attend_fused)
        model(images)


def run_jax(config: ViTConfig, dtype: Any) -> None:
    """The same, traced."""
    images = jax.ShapeDtypeStruct((2, *config.image_size, config.in_channels), dtype)
    for rates in (RATES, {}):
        model = nnx.eval_shape(
            lambda rates=rates: vit_jax.VisionTransformer(config.replace(**rates), rngs=nnx.Rngs(0), dtype=dtype)
        )
        if not rates:
            model.eval()
            vit_jax.set_attention(model, vit_jax.attend_fused)
        nnx.eval_shape(lambda model, x: model(x, rngs=nnx.Rngs(dropout=0)), model, images)


def transform() -> None:
    """Gradients of compiled and mapped models."""
    model = vit_jax.create_model(BASE)
    model.eval()
    graph, state = nnx.split(model)
    images = jnp.zeros((2, *BASE.image_size, BASE.in_channels))
    run = jax.vmap(lambda state, image: nnx.merge(graph, state)(image[None]).sum(), (None, 0))
    jax.eval_shape(jax.jit(jax.grad(lambda state: run(state, images).sum())), state)


def planted(folder: Path) -> None:
    """A layer whose annotation names another shape than the layer returns."""
    code = Path(str(vit_torch.layers.patch_embed.__file__)).read_text()
    wrong = code.replace('-> Float[Tensor, "B N D"]', '-> Float[Tensor, "B C N"]')
    assert wrong != code
    (folder / "planted.py").write_text(wrong)
    sys.path.insert(0, str(folder))
    import planted

    layer: Any = planted.PatchEmbed(BASE.image_size, BASE.patch_size, 3, BASE.embed_dim)
    layer(torch.zeros(2, 3, *BASE.image_size))


def refused(call: Callable[[], Any]) -> bool:
    try:
        call()
    except TypeCheckError:
        return True
    return False


def main(folder: Path) -> None:
    """Raises where a shape does not hold, or where one that is wrong passes.

    Args:
        folder: empty; the hook checks the module ``planted`` in it too.
    """
    for config in CONFIGS.values():
        run_torch(config, torch.float32)
        run_jax(config, jnp.float32)
    run_torch(BASE, torch.bfloat16)
    run_jax(BASE, jnp.bfloat16)
    transform()
    in_torch, in_jax = vit_torch.VisionTransformer(BASE), vit_jax.create_model(BASE)
    q = torch.zeros(2, 3, 5, 8)
    wrong: dict[str, Callable[[], Any]] = {
        "a matrix of tokens, torch": partial(in_torch.blocks[0], torch.zeros(5, BASE.embed_dim)),
        "a matrix of tokens, jax": partial(in_jax.blocks[0], jnp.zeros((5, BASE.embed_dim))),
        "whole numbers, torch": partial(in_torch.pool, torch.zeros(2, 16, BASE.embed_dim, dtype=torch.int32)),
        "whole numbers, jax": partial(in_jax.pool, jnp.zeros((2, 16, BASE.embed_dim), jnp.int32)),
        "numpy's arrays": partial(in_torch.embed, torch.zeros(2, 3, *BASE.image_size).numpy()),
        "fewer keys than queries": partial(vit_torch.attend_fused, q, q[:, :, 1:], q[:, :, 1:], 1.0, torch.relu),
        "a bias of other heads": partial(vit_torch.attend_fused, q, q, q, 1.0, torch.relu, torch.zeros(1, 2, 5, 5)),
        "a wrong annotation": partial(planted, folder),
    }
    missed = [name for name, call in wrong.items() if not refused(call)]
    assert not missed, missed
