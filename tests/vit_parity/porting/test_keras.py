"""Models of Keras 3 on JAX against their twins in PyTorch; skipped where Keras is not installed."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
import torch

from tests.vit_parity.porting.ports import tokens
from vit_parity.porting import capture, compare

os.environ.setdefault("KERAS_BACKEND", "jax")
keras: Any = pytest.importorskip("keras")
X = tokens(4, 8)


class Block(torch.nn.Module):
    def __init__(self, of: Any, form: str) -> None:
        super().__init__()
        self.ln, self.fc, self.form = torch.nn.LayerNorm(8), torch.nn.Linear(8, 8), form
        self.fc.weight.data = torch.tensor(np.asarray(of.fc.kernel)).T.contiguous()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.nn.functional.gelu(self.fc(self.ln(x)), approximate=self.form)


def pair(form: str) -> tuple[torch.nn.Module, Any]:
    keras.utils.set_random_seed(0)

    class KerasBlock(keras.layers.Layer):
        def __init__(self, **given: Any) -> None:
            super().__init__(**given)
            self.ln = keras.layers.LayerNormalization(epsilon=1e-5, name="ln")
            self.fc = keras.layers.Dense(8, activation="gelu", name="fc")

        def call(self, x: Any) -> Any:
            return x + self.fc(self.ln(x))

    class Net(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = KerasBlock(name="one"), KerasBlock(name="two")
            self.head = keras.layers.Dense(3, name="head")

        def call(self, x: Any) -> Any:
            return self.head(self.two(self.one(x)))

    net = Net()
    net(X)
    model = torch.nn.Sequential(Block(net.one, form), Block(net.two, form), torch.nn.Linear(8, 3)).eval()
    model[2].weight.data = torch.tensor(np.asarray(net.head.kernel)).T.contiguous()
    for layer in (model[0].fc, model[1].fc, model[2]):
        layer.bias.data.zero_()
    return model, net


def test_layers_are_seen_by_their_paths_and_agree_there_and_back() -> None:
    model, net = pair("none")
    kept = capture(net, X).activations
    assert list(kept) == ["one.ln", "one.fc", "one", "two.ln", "two.fc", "two", "head", "output"]
    np.testing.assert_allclose(kept["output"], net(X), rtol=1e-5, atol=1e-6)
    found = compare(model, net, X, gradients=True)
    assert found.equal, str(found)
    assert found.gradients is not None
    assert {row.counterpart for row in found.gradients.rows} >= {"one.fc.kernel", "two.ln.gamma", "head.bias"}


def test_a_mistake_is_found_in_its_block() -> None:
    model, net = pair("tanh")
    assert [fault.counterpart for fault in compare(model, net, X).faults] == ["one", "two"]
