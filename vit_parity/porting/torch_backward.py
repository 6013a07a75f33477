"""The way back through a ``torch.nn.Module``: what arrives at each module, and the gradients of its parameters.

Each slot becomes a copy of its tensor whose derivative is recorded, and on request replaced. A copy, so that a layer
that changes its input in place changes nothing that was recorded; where a model relies on such a change elsewhere, its
slots would compute something else, and only the parameters' gradients are taken.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from conversion.containers.file_checks import first_line
from vit_parity.frameworks import torch_array
from vit_parity.porting.layouts import apart
from vit_parity.porting.stages import ROOT, Backward, Key, Loss, Values, is_float
from vit_parity.porting.torch_model import TorchModel, Watched, shaken_tensor
from vit_spec import VitportError

_SAME = 1e-4
"""Relative L2 distance up to which copies of all slots count as having changed nothing."""


class TorchBackward:
    """A module with a loss, as of :class:`vit_parity.porting.stages.Differentiable`."""

    def __init__(self, model: TorchModel, loss: Loss) -> None:
        self._model, self._loss = model, loss
        floats = {name: it for name, it in model.module.named_parameters() if it.is_floating_point()}
        self.frozen = [name for name, it in floats.items() if not it.requires_grad]
        self.weights: dict[str, np.ndarray] = {}
        self._seen_through: bool | None = None

        def keep(name: str, leaf: Any) -> Any:
            if hasattr(leaf, "is_floating_point") and leaf.is_floating_point():
                self.weights[name] = torch_array(leaf).copy()
            return leaf

        model.inputs(keep)
        self._inputs = list(self.weights)
        self.weights = {name: torch_array(it).copy() for name, it in floats.items() if it.requires_grad} | self.weights

    def run(
        self,
        *,
        wide: bool = False,
        shake: float = 0.0,
        forced: Mapping[Key, np.ndarray] | None = None,
        arriving: Mapping[Key, np.ndarray] | None = None,
    ) -> Backward:
        """As :class:`vit_parity.porting.stages.Differentiable` says."""
        if self._seen_through is None:
            plain = self._model.run().values
            try:
                there = self._passed(False, 0.0, {}, {}, True).values
                self._seen_through = all(key in there and not apart(there[key], x) > _SAME
                                         for key, x in plain.items() if is_float(x) and x.size)  # fmt: skip
            except VitportError:
                self._seen_through = False
        return self._passed(wide, shake, forced or {}, arriving or {}, self._seen_through)

    def _passed(
        self, wide: bool, shake: float, forced: Mapping[Key, np.ndarray], arriving: Mapping[Key, np.ndarray],
        slots: bool
    ) -> Backward:  # fmt: skip
        import torch

        module = copy.deepcopy(self._model.module)
        for parameter in module.parameters():
            parameter.grad = None
        kept = _Differentiated(module, forced, arriving, shake, slots)
        inputs: dict[str, Any] = {}

        def given(name: str, leaf: Any) -> Any:
            if name not in self._inputs:
                return leaf
            inputs[name] = leaf.detach().clone().requires_grad_()
            return inputs[name].clone()  # a leaf may not be changed in place

        with torch.enable_grad():
            try:
                self._model.call(kept, wide, shake, given, lambda output: kept.back(self._lost(output, kept)))
            except VitportError:
                raise
            except Exception as error:
                raise VitportError(
                    f"{self._model.title} cannot be differentiated on these inputs ({first_line(error)})."
                ) from error
        tensors = dict(module.named_parameters()) | inputs
        return Backward(
            kept.values,
            kept.gradients,
            {name: np.zeros(tensors[name].shape, array.dtype) if tensors[name].grad is None
             else torch_array(tensors[name].grad).copy() for name, array in self.weights.items()},
        )  # fmt: skip

    def _lost(self, output: Any, kept: _Differentiated) -> Any:
        import torch

        if callable(self._loss):
            return self._loss(output)
        return sum((kept.outputs[slot] * torch.tensor(weights).to(kept.outputs[slot])).sum()
                   for slot, weights in self._loss.items())  # fmt: skip


class _Differentiated(Watched):
    """A module whose slots record what arrives at them on the way back."""

    def __init__(
        self, module: Any, forced: Mapping[Key, np.ndarray], arriving: Mapping[Key, np.ndarray], shake: float,
        slots: bool
    ) -> None:  # fmt: skip
        super().__init__(module, forced)
        self.gradients: Values = {}
        self.outputs: dict[str, Any] = {}
        self._arriving, self._shake, self._each = arriving, shake, slots
        self._rng = np.random.default_rng(1)
        self._tensors: list[Any] = []
        self._going_back = False
        self._calls: Counter[str] = Counter()
        self._again: Counter[str] = Counter()

    def back(self, loss: Any) -> None:
        """Differentiate. Every slot takes part with weight 0, so it is reached even if nothing arrives from behind."""
        import torch

        self._going_back = True
        reached = [it for it in self._tensors if it.requires_grad]
        torch.autograd.backward([loss, *reached], [torch.ones_like(loss), *map(torch.zeros_like, reached)])

    def arrived(self, key: Key, gradient: Any) -> Any:
        """What goes on from a slot."""
        import torch

        self.gradients[key] = torch_array(gradient).copy()
        own = self._arriving.get(key)
        if own is not None:
            gradient = torch.tensor(np.array(own)).to(gradient).reshape(gradient.shape)
        return shaken_tensor(gradient, self._shake, self._rng) if self._shake else gradient

    def _called(self, path: str) -> str:
        """On the way back, ``torch.utils.checkpoint`` calls modules again, the last call first."""
        if not self._going_back:
            self._calls[path] += 1
            return super()._called(path)
        self._again[path] += 1
        number = max(self._calls[path] + 1 - self._again[path], 1)
        return path if number == 1 else f"{path}#{number}"

    def _passed(self, tensor: Any, key: Key) -> Any:
        if not self._each or not tensor.is_floating_point():
            passed = tensor if self._going_back or not self._each else super()._passed(tensor, key)
        else:
            if not self._going_back:
                self.values[key] = torch_array(tensor).copy()
            own = self._forced.get(key)
            passed = _slot().apply(tensor, None if own is None else self._replaced(tensor, key), self, key)
            if not self._going_back:
                self._tensors.append(passed)
        if key[0] == ROOT and key[1][0] == ">":
            self.outputs[key[1]] = passed
        return passed


@cache
def _slot() -> Any:
    import torch

    class Slot(torch.autograd.Function):
        """The identity, or another value with the derivative of the identity."""

        @staticmethod
        def forward(ctx: Any, tensor: Any, value: Any, record: _Differentiated, key: Key) -> Any:
            ctx.record, ctx.key = record, key
            return (tensor if value is None else value).clone()

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            return ctx.record.arrived(ctx.key, gradients[0]), None, None, None

    return Slot
