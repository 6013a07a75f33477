"""PyTorch's own encoder against a port of it in Flax: sound pairs are not accused, planted mistakes are found."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from tests.vit_parity.porting.pairs import pair
from tests.vit_parity.porting.pairs.pair import attributes
from tests.vit_parity.porting.ports import Encoder, encoder, ported, tokens
from vit_parity.porting import capture, compare, suggest_pairs, tag
from vit_parity.porting.pairs import read_pairs
from vit_parity.porting.stages import Observed
from vit_parity.porting.suggest import suggest
from vit_spec import VitportError

X = tokens(2, 7, 24)


def test_a_sound_port_is_accused_of_nothing() -> None:
    found = compare(encoder(), ported(encoder()), X)
    assert found.equal
    assert found.exact
    assert [row.judged for row in found.rows] == ["rounding"] * 14
    assert max(row.alone or 0 for row in found.rows) < 1e-14  # each stage by itself, in float64
    assert "Rounding explains every difference" in str(found)


class Twice(torch.nn.Module):
    """A layer of two inputs, given one twice."""

    def __init__(self, of: torch.nn.Module) -> None:
        super().__init__()
        self.of = of

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.of(x, x)


def _bias(module: Any, factor: float) -> None:
    module.bias[...] = module.bias[...] * factor


def _plant(at: int, part: str, change: Callable[[Any], None]) -> Callable[[Encoder], None]:
    def planted(model: Encoder) -> None:
        target: Any = model.layers[at]
        for step in filter(None, part.split(".")):
            target = getattr(target, step)
        change(target)

    return planted


def _transposed(module: Any) -> None:
    module.kernel[...] = module.kernel[...].T


FAULTS = {
    "tanh GELU": (_plant(1, "", lambda it: setattr(it, "act", nnx.gelu)), "layers.1.linear2",
                  "uses tanh GELU instead of GELU"),
    "epsilon": (_plant(1, "ln_2", lambda it: setattr(it, "epsilon", 1e-6)), "layers.1.norm2", "uses epsilon 1e-06"),
    "large epsilon": (_plant(0, "ln_1", lambda it: setattr(it, "epsilon", 1e-3)), "layers.0.norm1",
                      "uses epsilon 0.001"),
    "no bias": (_plant(0, "fc2", partial(_bias, factor=0.0)), "layers.0.linear2", "leaves out bias"),
    "bias twice": (_plant(0, "fc1", partial(_bias, factor=2.0)), "layers.0.linear1", "adds bias twice"),
    "norm without bias": (_plant(1, "ln_1", partial(_bias, factor=0.0)), "layers.1.norm1", "leaves out the bias"),
    "scale of attention": (_plant(0, "attn", lambda it: setattr(it, "scale", 1.0)), "layers.0.self_attn",
                           "does not scale its scores"),
    "transposed in attention": (_plant(1, "attn.out", _transposed), "layers.1.self_attn",
                                "reads the matrix of its output transposed"),
    "gain of the branch": (_plant(0, "", lambda it: setattr(it, "gain", 0.9)), "layers.0.norm2", None),
}  # fmt: skip


QUICK = ("epsilon",)


@pytest.mark.parametrize("name", [it if it in QUICK else pytest.param(it, marks=pytest.mark.slow) for it in FAULTS])
def test_a_planted_mistake_is_found_where_it_is(name) -> None:
    plant, stage, cause = FAULTS[name]
    mirror = ported(encoder())
    plant(mirror)
    found = compare(encoder(), mirror, X)
    assert [fault.stage for fault in found.faults] == [stage]
    if cause is not None:
        assert cause in found.faults[0].causes
    behind = found.rows[[row.name for row in found.rows].index(stage) + 1 :]
    around = stage.rpartition(".")[0]
    assert {row.judged for row in behind if row.name != around} <= {"amplified", "rounding"}  # right on A's own input


def test_faults_behind_a_first_are_found_and_reported(tmp_path) -> None:
    mirror = ported(encoder())
    FAULTS["transposed in attention"][0](mirror)
    FAULTS["no bias"][0](mirror)
    FAULTS["norm without bias"][0](mirror)
    found = compare(encoder(), mirror, X)
    assert [fault.stage for fault in found.faults] == ["layers.0.linear2", "layers.1.norm1", "layers.1.self_attn"]
    found.write_report(tmp_path / "out.html")
    page = (tmp_path / "out.html").read_text()
    assert all(row.name in page for row in found.rows)
    assert "B leaves out bias" in page


def test_two_captures_tell_the_first_stage_and_nothing_of_those_behind_it() -> None:
    mirror = ported(encoder())
    FAULTS["no bias"][0](mirror)
    found = compare(capture(encoder(), X), capture(mirror, X))
    assert [fault.stage for fault in found.faults] == ["layers.0.linear2"]
    at = [row.name for row in found.rows].index("layers.0.linear2")
    assert {row.judged for row in found.rows[at + 1 :]} == {"unknown"}
    assert compare(capture(encoder(), X), capture(ported(encoder()), X)).equal


def test_images_are_given_channels_last_where_the_other_side_needs_them() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.ReLU(), torch.nn.Conv2d(8, 5, 3)).eval()

    class Port(nnx.Module):
        def __init__(self, padding: Any) -> None:
            self.one = nnx.Conv(3, 8, (3, 3), (2, 2), padding=padding, rngs=nnx.Rngs(0))
            self.two = nnx.Conv(8, 5, (3, 3), padding="VALID", rngs=nnx.Rngs(0))
            for ours, theirs in ((self.one, model[0]), (self.two, model[2])):
                ours.kernel[...] = theirs.weight.detach().numpy().transpose(2, 3, 1, 0)
                ours.bias[...] = theirs.bias.detach().numpy()

        def __call__(self, x: jax.Array) -> jax.Array:
            return self.two(nnx.relu(self.one(x)))

    images = tokens(2, 3, 12, 16)
    (fault,) = compare(model, Port("SAME"), images).faults
    assert fault.stage == "0"
    assert fault.causes == ("pads by (0, 2) in height and (0, 2) in width",)


@pytest.mark.parametrize(
    ("options", "causes"),
    [
        ({"transpose_kernel": False}, ("flips its kernel",)),  # Flax's default
        pytest.param({"padding": "SAME"}, ("cuts 0 rows and 0 columns off the start of its result, not 1 and 1",),
                     marks=pytest.mark.slow),
        ({"transpose_kernel": True}, None),
    ],
)  # fmt: skip
def test_a_transposed_convolution_is_told_from_its_mirror_image(options, causes) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.ConvTranspose2d(4, 6, 3, 2, 1, output_padding=1)).eval()
    kernel, bias = (getattr(model[0], name).detach().numpy() for name in ("weight", "bias"))
    settings = {"padding": ((1, 2), (1, 2)), "transpose_kernel": True} | options
    port = nnx.ConvTranspose(4, 6, (3, 3), (2, 2), rngs=nnx.Rngs(0), **settings)
    kernel = kernel.transpose(2, 3, 1, 0)
    port.kernel[...] = kernel if settings["transpose_kernel"] else kernel.swapaxes(2, 3)
    port.bias[...] = bias
    found = compare(model, port, tokens(2, 4, 5, 7), pairs=["0 = output"])
    assert [fault.causes for fault in found.faults] == ([] if causes is None else [causes])


def test_a_norm_without_weights_behind_a_mistake_is_paired_with_the_only_norm_there() -> None:
    rng = np.random.default_rng(0)
    first, right = (rng.standard_normal((4, 6)) for _ in range(2))

    def seen(*layers: tuple[str, str]) -> Observed:
        """The first layer and the last one are right."""
        arrays = [first, *(rng.standard_normal((4, 6)) for _ in layers[2:]), right]
        values = {(name, ">0"): array for (name, _), array in zip(layers, arrays, strict=True)}
        return Observed(values, dict(layers))

    fc1, norm, side = ("fc1", "Linear"), ("norm", "LayerNorm"), ("side", "Linear")
    one, normed, other, beside = ("one", "Linear"), ("normed", "LayerNorm"), ("last", "LayerNorm"), ("beside", "Linear")
    found = suggest(seen(fc1, norm, side), seen(one, normed, beside), None, None, 1e-6)
    assert [str(pair) for pair in found.pairs] == ["fc1 = one", "norm = normed", "side = beside"]
    found = suggest(seen(fc1, norm, side), seen(one, normed, other, beside), None, None, 1e-6)  # which of the two?
    assert [str(pair) for pair in found.pairs] == ["fc1 = one", "side = beside"]


def test_a_layer_of_no_known_kind_is_said_to_have_no_causes_of_its_own() -> None:
    torch.manual_seed(0)
    own = torch.nn.Sequential(torch.nn.Linear(6, 6), Twice(torch.nn.Bilinear(6, 6, 5))).eval()
    first = [it.detach().numpy() for it in own[0].parameters()]
    weight, bias = (it.detach().numpy() for it in own[1].of.parameters())

    def port(x: jax.Array) -> jax.Array:
        x = tag("fc", x @ first[0].T + first[1])
        return tag("of", jnp.einsum("bi,oij,bj->bo", x, weight[:, ::-1], x) + bias)

    found = compare(own, port, tokens(4, 6), pairs=["0 = fc", "1.of = of", "output = output"])
    (fault,) = found.faults
    assert fault.stage == "1.of"
    assert fault.sentence.endswith("; of Bilinear only the causes of any stage could be tried, and none fits")
    assert fault.sentence in str(found)


def test_stages_of_a_function_with_tags_are_judged_each_by_itself() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 6), torch.nn.Tanh(), torch.nn.Linear(6, 6), torch.nn.Tanh()).eval()
    weights = [(it.weight.detach().numpy().T, it.bias.detach().numpy()) for it in model if hasattr(it, "weight")]

    def port(x: jax.Array, wrong: tuple[int, ...] = ()) -> jax.Array:
        for at, (kernel, bias) in enumerate(weights):
            x = tag(f"fc.{at}", x @ kernel + bias * (at not in wrong))
            x = tag(f"act.{at}", jnp.tanh(x))
        return x

    x = tokens(4, 6)
    assert compare(model, port, x).equal
    found = compare(model, lambda x: port(x, (0, 1)), x)
    assert [(fault.stage, fault.causes) for fault in found.faults] == [
        ("0", ("leaves out bias",)),
        ("2", ("leaves out bias",)),
    ]
    assert [row.judged for row in found.rows] == ["divergence", "amplified", "divergence", "amplified", "amplified"]


def test_pairs_are_written_as_patterns_with_parts_and_axes() -> None:
    torch.manual_seed(0)

    class Parts(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k = torch.nn.Linear(6, 4), torch.nn.Linear(6, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.q(x) @ self.k(x).mT

    class Joint(nnx.Module):
        def __init__(self, model: Parts) -> None:
            self.qk = nnx.Linear(6, 8, rngs=nnx.Rngs(0))
            self.qk.kernel[...] = np.concatenate([it.weight.detach().numpy().T for it in (model.q, model.k)], -1)
            self.qk.bias[...] = np.concatenate([it.bias.detach().numpy() for it in (model.q, model.k)])

        def __call__(self, x: jax.Array) -> jax.Array:
            q, k = jnp.split(self.qk(x), 2, -1)
            return q @ k.mT

    model = Parts().eval()
    joint, x = Joint(model), tokens(2, 5, 6)
    drafted = suggest_pairs(model, joint, x)
    assert [str(pair) for pair in drafted.pairs] == ["q = qk[..., 0:4]", "k = qk[..., 4:8]", "output = output"]
    assert compare(model, joint, x, pairs=str(drafted).splitlines()).equal
    joint.qk.bias[4:8] = 0.0
    found = compare(model, joint, x, pairs=["q = qk[..., 0:4]", "k = qk[..., 4:8]", "output = output"])
    assert [fault.stage for fault in found.faults] == ["k"]
    with pytest.raises(VitportError, match=r"no stage of A is called queries"):
        read_pairs(["queries = qk"], ["q", "k"], ["qk"])
    with pytest.raises(VitportError, match=r"no stage of B is called qkv: did you mean qk\?"):
        read_pairs(["q = qkv"], ["q", "k"], ["qk"])
    with pytest.raises(VitportError, match="is not a pair: write"):
        read_pairs(["q is qk"], ["q", "k"], ["qk"])


def test_a_scanned_port_is_paired_step_by_step() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(*[torch.nn.Linear(6, 6) for _ in range(3)]).eval()
    kernels, biases = (np.stack([getattr(it, name).detach().numpy() for it in model]) for name in ("weight", "bias"))
    biases[1] *= 2

    def port(x: jax.Array) -> jax.Array:
        def step(x: jax.Array, own: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
            return tag("fc", x @ own[0].T + own[1]), None

        return jax.lax.scan(step, x, (jnp.asarray(kernels), jnp.asarray(biases)))[0]

    found = compare(model, port, tokens(4, 6), pairs=["* = fc[*]", "output = output"])
    assert [(fault.stage, fault.causes) for fault in found.faults] == [("1", ("adds bias twice",))]


@pytest.mark.slow
def test_two_mistakes_of_one_module_s_own_code_are_both_told() -> None:
    both = attributes("blocks.0", scale=1.0, act=nnx.silu)
    found = pair("gpt2").compared(both)
    assert [(fault.stage, fault.causes) for fault in found.faults] == [
        ("h.0.attn.c_proj", ("does not scale its scores",)), ("h.0.mlp.c_proj", ("uses SiLU instead of tanh GELU",))
    ]  # fmt: skip
