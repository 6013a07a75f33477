"""Models of Equinox and Haiku: what of them is seen, and what is found in a port that nobody here wrote.

The port is the ViT of Equimo, an Equinox library, with the weights of transformers' ``ViTForImageClassification``.
Equimo's table of positions is square, so the image is. Measured, float32: what is seen differs from the oracle by at
most 2.4e-7, of values up to 2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox
import haiku
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from tests.vit_parity.porting.ports import filled, tokens
from vit_parity.porting import Porting, capture, compare
from vit_spec import VitportError

WIDTH, HEADS, DEPTH = 24, 4, 2


class Mlp(equinox.Module):
    first: equinox.nn.Linear
    second: equinox.nn.Linear
    act: Callable[[jax.Array], jax.Array]

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.second(self.act(self.first(x)))


class Net(equinox.Module):
    layers: list[Mlp]
    norms: dict[str, equinox.nn.LayerNorm]

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in self.layers:
            x = x + layer(self.norms["in"](x))
        return self.norms["out"](x)


def _net() -> Net:
    keys = jax.random.split(jax.random.key(0), 4)
    layers = [Mlp(equinox.nn.Linear(6, 9, key=keys[2 * at]), equinox.nn.Linear(9, 6, key=keys[2 * at + 1]), jnp.tanh)
              for at in range(2)]  # fmt: skip
    return Net(layers, {name: equinox.nn.LayerNorm(6) for name in ("in", "out")})


@pytest.mark.parametrize(
    "given",
    [
        jax.vmap,
        equinox.filter_vmap,
        lambda net: equinox.filter_jit(jax.vmap(net)),
        lambda net: jax.jit(jax.vmap(net)),
    ],
    ids=["vmap", "filter_vmap", "filter_jit", "jit"],
)
def test_every_module_of_equinox_is_seen_by_its_path_however_it_is_given(given) -> None:
    net, x = _net(), jnp.asarray(tokens(5, 6))
    call = equinox.nn.Linear.__call__
    kept = capture(given(net), x).activations
    path = "" if "output" in kept and "layers.0.first" in kept else "Net."
    first = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
    first = first @ np.asarray(net.layers[0].first.weight).T + np.asarray(net.layers[0].first.bias)
    np.testing.assert_allclose(kept[f"{path}layers.0.first"], first, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(kept["output"], jax.vmap(net)(x), rtol=1e-5, atol=1e-6)
    assert [name.removeprefix(path) for name in kept] == [
        "norms.in", "layers.0.first", "layers.0.second", "layers.0", "norms.in#2", "layers.1.first", "layers.1.second",
        "layers.1", "norms.out", *(["Net"] if path else []), "output",
    ]  # fmt: skip
    assert equinox.nn.Linear.__call__ is call


def test_scanned_modules_of_equinox_are_seen_step_by_step() -> None:
    net, x = _net(), jnp.asarray(tokens(6))
    stacked = jax.tree.map(lambda *it: jnp.stack(it) if equinox.is_array(it[0]) else it[0], *net.layers)
    arrays, rest = equinox.partition(stacked, equinox.is_array)

    def scanned(x: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda x, layer: (x + equinox.combine(layer, rest)(x), None), x, arrays)[0]

    kept = capture(scanned, x).activations
    assert list(kept) == [f"Mlp{part}[{at}]" for at in range(2) for part in (".first", ".second", "")] + ["output"]
    np.testing.assert_allclose(kept["Mlp[0]"], net.layers[0](x), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(kept["Mlp[1]"], net.layers[1](x + jnp.asarray(kept["Mlp[0]"])), rtol=1e-5, atol=1e-6)


def test_dropout_that_is_switched_on_is_refused() -> None:
    net = equinox.nn.Sequential([equinox.nn.Linear(6, 6, key=jax.random.key(0)), equinox.nn.Dropout(0.1)])
    with pytest.raises(VitportError, match=r"dropout switched on.*inference_mode"):
        capture(net, tokens(6))
    assert "layers.0" in capture(equinox.nn.inference_mode(net), tokens(6)).activations


def _haiku(x: jax.Array) -> jax.Array:
    for width in (9, 6):
        x = haiku.Linear(width)(jnp.tanh(haiku.LayerNorm(-1, True, True, name="norm")(x)))
    return x


def test_every_module_of_haiku_is_seen_and_a_fault_in_it_is_named() -> None:
    """Against ``torch.nn``'s layers with the same weights, moved away from those of a fresh model."""
    transformed, x = haiku.without_apply_rng(haiku.transform(_haiku)), tokens(5, 6)
    params = transformed.init(jax.random.key(0), x)
    rng = np.random.default_rng(2)
    params = jax.tree.map(lambda it: it + 0.3 * rng.standard_normal(it.shape).astype(np.float32), params)
    layers = []
    for at, (before, width) in enumerate(((6, 9), (9, 6))):
        norm, linear = torch.nn.LayerNorm(before), torch.nn.Linear(before, width)
        number = f"_{at}" if at else ""
        for module, name, weight in ((norm, f"norm{number}", "scale"), (linear, f"linear{number}", "w")):
            own = params[name]
            module.weight.data = torch.tensor(np.asarray(own[weight]).T)
            module.bias.data = torch.tensor(np.asarray(own["offset" if weight == "scale" else "b"]))
        layers += [norm, torch.nn.Tanh(), linear]
    model = torch.nn.Sequential(*layers).eval()
    assert compare(model, lambda x: transformed.apply(params, x), x).equal
    damaged = {**params, "linear_1": {**params["linear_1"], "b": jnp.zeros(6)}}
    found = compare(model, lambda x: transformed.apply(damaged, x), x)
    (fault,) = found.faults
    assert (fault.stage, fault.counterpart) == ("5", "linear_1")
    assert "B leaves out bias" in str(found)


class Equimo:
    """transformers' ViT, and Equimo's with its weights."""

    def __init__(self, act: str) -> None:
        from equimo.models.vit import VisionTransformer
        from transformers import ViTConfig, ViTForImageClassification

        config = ViTConfig(hidden_size=WIDTH, num_hidden_layers=DEPTH, num_attention_heads=HEADS, intermediate_size=48,
                           image_size=32, patch_size=8, layer_norm_eps=1e-6)  # fmt: skip
        config.num_labels = 10
        self.model = filled(ViTForImageClassification(config)).eval()
        self.images = tokens(2, 3, 32, 32)
        make: Any = VisionTransformer
        fresh = make(
            32, 3, WIDTH, 8, HEADS, [DEPTH], key=jax.random.key(0), reg_tokens=0, num_classes=10, global_pool="token",
            eps=1e-6, mlp_ratio=2.0, act_layer=act,
        )  # fmt: skip
        tensors = {name.removeprefix("vit."): it.numpy() for name, it in self.model.state_dict().items()}
        self.port: Any = equinox.tree_at(_places, fresh, [jnp.asarray(it) for it in _arrays(tensors)])

    def compared(self, port: Any) -> Porting:
        key = jax.random.key(0)
        return compare(self.model, jax.vmap(lambda image: port(image, key)), self.images)


def _places(port: Any) -> list[Any]:
    layers = [part for block in port.blocks[0].blocks for part in
              (block.prenorm, block.norm, block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp.fc2)]  # fmt: skip
    layers += [port.norm, port.head]
    conv = port.patch_embed.proj
    return [port.cls_token, port.global_pos_embed.weight, conv.weight, conv.bias,
            *(array for layer in layers for array in (layer.weight, layer.bias))]  # fmt: skip


def _arrays(tensors: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Of transformers' model, in the same order."""
    kernel, bias = (tensors[f"embeddings.patch_embeddings.projection.{part}"] for part in ("weight", "bias"))
    found = [
        tensors["embeddings.cls_token"][0],
        tensors["embeddings.position_embeddings"][0],
        kernel,
        bias[:, None, None],
    ]
    for at in range(DEPTH):
        for layer in ("layernorm_before", "layernorm_after", "qkv", "attention.o_proj", "mlp.fc1", "mlp.fc2"):
            names = [f"attention.{part}_proj" for part in "qkv"] if layer == "qkv" else [layer]
            found += [np.concatenate([tensors[f"layers.{at}.{name}.{part}"] for name in names])
                      for part in ("weight", "bias")]  # fmt: skip
    return found + [tensors[f"{layer}.{part}"] for layer in ("layernorm", "classifier") for part in ("weight", "bias")]


@pytest.fixture(scope="module")
def equimo() -> Equimo:
    return Equimo("exactgelu")


@pytest.mark.slow
def test_the_vit_of_equimo_agrees_with_that_of_transformers(equimo) -> None:
    found = equimo.compared(equimo.port)
    assert found.equal, str(found)
    paired = {pair.b for pair in found.pairs}
    assert {"VisionTransformer.blocks.0.blocks.1.mlp.fc2", "VisionTransformer.norm", "output"} <= paired


@pytest.mark.slow
def test_its_default_activation_is_told_from_that_of_transformers() -> None:
    """``"gelu"`` is the tanh form there: 2e-4 off, and wrong in every block."""
    other = Equimo("gelu")
    told = str(other.compared(other.port))
    assert "vit.layers.0.mlp.fc2" in told
    assert "B uses tanh GELU instead of GELU" in told


def _reversed(layer: Any) -> Any:
    return equinox.tree_at(lambda it: it.weight, layer, layer.weight[:, ::-1])


MISTAKES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "no bias": (lambda it: equinox.tree_at(lambda it: it.bias, it, it.bias * 0), "B leaves out bias."),
    "norm without bias": (lambda it: equinox.tree_at(lambda it: it.bias, it, it.bias * 0), "B leaves out the bias."),
    "rows reversed": (_reversed, "B has the rows of its matrix reversed"),
    "weights in bfloat16": (
        lambda it: equinox.tree_at(lambda it: it.weight, it, it.weight.astype(jnp.bfloat16).astype(jnp.float32)),
        "B rounds its weights to bfloat16.",
    ),
    "scale of ones": (
        lambda it: equinox.tree_at(lambda it: it.weight, it, it.weight * 0 + 1),
        "B leaves out the scale.",
    ),
}
NORMS = ("norm without bias", "scale of ones")
LINEAR = ("no bias", "rows reversed", "weights in bfloat16")


def _planted() -> list[Any]:
    """Every layer with each mistake of its kind."""
    found = []
    layers = {f"blocks.0.blocks.{at}.{name}": kinds for at in range(DEPTH) for name, kinds in (
        ("prenorm", NORMS), ("norm", NORMS), ("attn.proj", LINEAR), ("mlp.fc1", LINEAR),
        ("mlp.fc2", LINEAR), ("attn.qkv", LINEAR))}  # fmt: skip
    for path, kinds in (layers | {"norm": NORMS, "head": LINEAR, "patch_embed.proj": ("no bias",)}).items():
        found += [pytest.param(path, kind, id=f"{kind} in {path}") for kind in kinds]
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("path", "kind"), _planted())
def test_a_mistake_in_a_layer_is_found_there_and_named(path, kind, equimo) -> None:
    change, cause = MISTAKES[kind]

    def part(port: Any) -> Any:
        for step in path.split("."):
            port = port[int(step)] if step.isdigit() else getattr(port, step)
        return port

    found = equimo.compared(equinox.tree_at(part, equimo.port, change(part(equimo.port))))
    assert found.faults
    assert all(fault.counterpart == f"VisionTransformer.{path}" for fault in found.faults), str(found)
    assert cause in str(found), str(found)


@pytest.mark.slow
def test_gradients_of_an_equinox_module_are_compared() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 6)).eval()

    class Port(equinox.Module):
        mlp: Mlp

        def __call__(self, x: jax.Array) -> jax.Array:
            return jax.vmap(self.mlp)(x)

    def port(act: Callable[[jax.Array], jax.Array]) -> Port:
        layers = [equinox.nn.Linear(*sizes, key=jax.random.key(0)) for sizes in ((6, 8), (8, 6))]
        weights = [jnp.asarray(it.detach().numpy()) for it in model.parameters()]
        made = Port(Mlp(layers[0], layers[1], act))
        return equinox.tree_at(
            lambda it: (it.mlp.first.weight, it.mlp.first.bias, it.mlp.second.weight, it.mlp.second.bias), made, weights
        )

    x = tokens(4, 6)
    sound = compare(model, port(jnp.tanh), x, gradients=True)
    assert sound.equal, str(sound)
    assert sound.gradients is not None
    assert (sound.gradients.only_a, sound.gradients.only_b) == ((), ())
    found = compare(model, port(lambda x: jax.lax.stop_gradient(jnp.tanh(x))), x, gradients=True).gradients
    assert found is not None
    assert [fault.stage for fault in found.faults] == ["0"]
