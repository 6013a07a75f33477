"""What :func:`vit_parity.porting.capture` sees, against what the frameworks themselves compute."""

from __future__ import annotations

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from tests.vit_parity.porting.ports import encoder, ported, tokens
from vit_parity.capture_file import load_capture
from vit_parity.porting import capture, capturing, tag
from vit_spec import VitportError


def test_every_module_of_a_torch_model_is_seen() -> None:
    model, x = encoder(), tokens(2, 7, 24)
    kept = capture(model, x)
    given = torch.tensor(x)
    with torch.no_grad():
        first = model.layers[0]
        np.testing.assert_array_equal(kept.activations["layers.0.norm1"], first.norm1(given).numpy())
        np.testing.assert_allclose(kept.activations["output"], model(given).numpy(), rtol=2e-5, atol=1e-6)
    called = {name or "output" for name, module in model.named_modules() if not isinstance(module, torch.nn.ModuleList)}
    assert set(kept.activations) == {name for name in called if "out_proj" not in name}  # only its weight is used
    assert list(kept.activations)[-1] == "output"
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_nested_outputs_keywords_and_second_calls_have_names_of_their_own() -> None:
    class Nested(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act = torch.nn.ReLU()

        def forward(self, x: torch.Tensor, *, more: torch.Tensor) -> dict[str, object]:
            return {"sum": self.act(x), "both": (self.act(x + more), more)}

    x, more = tokens(2, 3), tokens(2, 3) * 2
    kept = capture(Nested().eval(), {"x": x, "more": more}).activations
    assert list(kept) == ["act", "act#2", "output", "output:1", "output:2"]
    np.testing.assert_array_equal(kept["act#2"], np.maximum(x + more, 0))
    np.testing.assert_array_equal(kept["output:2"], more)


def test_every_module_of_an_nnx_model_is_seen_and_the_model_is_not_changed() -> None:
    model, x = ported(encoder()), tokens(2, 7, 24)
    before, call = jax.tree.leaves(nnx.state(model)), nnx.Linear.__call__
    kept = capture(model, x).activations
    np.testing.assert_allclose(kept["layers.0.ln_1"], model.layers[0].ln_1(x), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(kept["layers.0.attn.qkv"], model.layers[0].attn.qkv(kept["layers.0.ln_1"]), atol=1e-5)
    np.testing.assert_allclose(kept["output"], model(x), rtol=1e-5, atol=1e-5)
    assert nnx.Linear.__call__ is call
    assert all(a is b for a, b in zip(before, jax.tree.leaves(nnx.state(model)), strict=True))


def test_scanned_and_compiled_nnx_layers_are_seen_step_by_step() -> None:
    class Step(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.fc = nnx.Linear(6, 6, rngs=rngs)

        def __call__(self, x: jax.Array) -> jax.Array:
            return jnp.tanh(self.fc(x))

    class Stacked(nnx.Module):
        def __init__(self) -> None:
            self.steps = nnx.vmap(Step)(nnx.Rngs(0).split(3))

        @nnx.jit
        def __call__(self, x: jax.Array) -> jax.Array:
            return nnx.scan(lambda x, step: nnx.remat(lambda m, x: m(x))(step, x), in_axes=(nnx.Carry, 0),
                            out_axes=nnx.Carry)(x, self.steps)  # fmt: skip

    model, x = Stacked(), tokens(4, 6)
    model(x)  # JAX remembers a trace without tags
    kept = capture(model, x).activations
    want = x
    for at in range(3):
        product = want @ np.asarray(model.steps.fc.kernel[...][at]) + np.asarray(model.steps.fc.bias[...][at])
        np.testing.assert_allclose(kept[f"steps.fc[{at}]"], product, rtol=1e-5, atol=1e-6)
        want = np.tanh(product)
    np.testing.assert_allclose(kept["output"], want, rtol=1e-5, atol=1e-6)


class _Dense(linen.Module):
    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return linen.Dense(4, name="head")(linen.gelu(linen.Dense(8)(x)))


@pytest.mark.parametrize("form", ["pair", "bound", "function", "compiled"])
def test_a_linen_model_is_seen_however_it_is_given(form) -> None:
    x = tokens(3, 5)
    module = _Dense()
    variables = module.init(jax.random.key(0), x)
    given = {"pair": (module, variables), "bound": module.bind(variables),
             "function": lambda x: module.apply(variables, x),
             "compiled": jax.jit(lambda x: module.apply(variables, x))}[form]  # fmt: skip
    if form == "compiled":
        given(x)  # JAX remembers a trace without tags
    kept = capture(given, x).activations
    _, seen = module.apply(variables, x, capture_intermediates=True)
    assert list(kept) == ["Dense_0", "head", "output"]
    np.testing.assert_allclose(kept["Dense_0"], seen["intermediates"]["Dense_0"]["__call__"][0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(kept["head"], seen["intermediates"]["head"]["__call__"][0], rtol=1e-5, atol=1e-6)


def _tagged(x: jax.Array) -> jax.Array:
    def one(row: jax.Array) -> jax.Array:
        return tag("row", jnp.sin(row)) * 2

    x = jax.vmap(jax.checkpoint(one), in_axes=1, out_axes=1)(x)
    x, _ = jax.lax.scan(lambda carry, by: (tag("step", carry * by), None), x, jnp.arange(1.0, 3.0))
    return x.sum()


def test_tags_pass_through_vmap_remat_scan_jit_and_grad() -> None:
    x = tokens(3, 5)
    kept = capture(jax.jit(_tagged), x).activations
    np.testing.assert_allclose(kept["row"], np.sin(x).T, rtol=1e-6)  # the batch axis first
    np.testing.assert_allclose(kept["step[0]"], 2 * np.sin(x), rtol=1e-6)
    np.testing.assert_allclose(kept["step[1]"], 4 * np.sin(x), rtol=1e-6)
    np.testing.assert_allclose(jax.grad(_tagged)(x), 4 * np.cos(x), rtol=1e-5)


def test_a_tag_costs_nothing_when_nobody_listens() -> None:
    def plain(x: jax.Array) -> jax.Array:
        return jnp.sin(x) * 2

    def named(x: jax.Array) -> jax.Array:
        return tag("sine", jnp.sin(x)) * 2

    texts = [jax.jit(it).lower(jnp.ones(3)).compile().as_text() for it in (plain, named)]
    count = [sum(" = " in line and "metadata" in line for line in text.splitlines()) for text in texts]
    assert count[0] == count[1] > 0


def test_an_onnx_graph_shows_every_node(tmp_path) -> None:
    from onnx import TensorProto, helper, save

    nodes = [helper.make_node("Sin", ["x"], ["sine"]), helper.make_node("Add", ["sine", "x"], ["y"])]
    places = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3]) for name in ("x", "y")]
    path = tmp_path / "graph.onnx"
    model = helper.make_model(helper.make_graph(nodes, "g", places[:1], places[1:]), opset_imports=[
        helper.make_opsetid("", 17)], ir_version=8)  # fmt: skip
    save(model, path)
    x = tokens(2, 3)
    kept = capture(path, x).activations
    np.testing.assert_allclose(kept["sine"], np.sin(x), rtol=1e-6)
    np.testing.assert_allclose(kept["y"], np.sin(x) + x, rtol=1e-6)


def test_a_capture_is_a_file_like_any_other(tmp_path) -> None:
    model, x = encoder(1), tokens(2, 7, 24)
    kept = capture(model, x, to=tmp_path / "run.npz")
    read = load_capture(tmp_path / "run.npz")
    assert list(read.activations) == list(kept.activations)
    np.testing.assert_array_equal(read.activations["layers.0"], kept.activations["layers.0"])


def test_a_training_loop_is_captured_step_by_step() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2)).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    x, want = torch.tensor(tokens(3, 5)), []
    with capturing(model) as steps:
        for _ in range(2):
            want.append((x @ model[0].weight.T + model[0].bias).detach().numpy())
            model(x).square().sum().backward()
            optimizer.step()
    assert [list(step.activations) for step in steps] == [["0", "1", "2", "output"]] * 2
    for step, product in zip(steps, want, strict=True):
        np.testing.assert_allclose(step.activations["0"], product, rtol=1e-6, atol=1e-6)
    assert not np.allclose(steps[0].activations["0"], steps[1].activations["0"])


def test_what_cannot_be_captured_is_refused_in_a_sentence() -> None:
    x = tokens(2, 7, 24)
    with pytest.raises(VitportError, match=r"training mode.*call model\.eval\(\)"):
        capture(encoder().train(), x)
    with pytest.raises(VitportError, match=r"dropout switched on.*call model\.eval\(\)"):
        capture(nnx.Sequential(nnx.Dropout(0.5, rngs=nnx.Rngs(0))), x)
    with pytest.raises(VitportError, match=r"A int cannot be run: give a torch\.nn\.Module"):
        capture(3, x)
    with pytest.raises(VitportError, match="fails on these inputs"):
        capture(encoder(), x[..., :5])
