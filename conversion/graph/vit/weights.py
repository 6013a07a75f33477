"""The canonical tensors of a model that was read from a graph."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from conversion.graph.layers import Linear, Norm
from conversion.graph.mlp import Mlp
from conversion.graph.vit.angles import Placed, frequencies_of
from conversion.graph.vit.attention import Attention
from conversion.graph.vit.block import Branch
from conversion.graph.vit.head import AttentionPool, Head
from conversion.graph.vit.relative import table_of
from conversion.tensors.table import Tensor
from vit_spec.vit.rotary import MixedRotary, Rotary


class Weights:
    """Collects tensors under canonical names; nothing is copied before it is used.

    Args:
        qkv_bias, proj_bias, norm_bias: whether any layer of that kind has a bias; the others then get zeros.
    """

    def __init__(self, *, qkv_bias: bool, proj_bias: bool, norm_bias: bool) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.qkv_bias = qkv_bias
        self.proj_bias = proj_bias
        self.norm_bias = norm_bias

    def put(self, name: str, array: np.ndarray) -> None:
        """A tensor as it is."""
        self.later(name, array.shape, array.dtype, lambda: np.ascontiguousarray(array))

    def later(self, name: str, shape: tuple[int, ...], dtype: np.dtype, read: Callable[[], np.ndarray]) -> None:
        """A tensor that is assembled when it is used."""
        native = dtype.newbyteorder("=")
        self.tensors[name] = Tensor(shape, native, lambda: np.asarray(read(), native))

    def linear(
        self, name: str, kernel: np.ndarray, bias: np.ndarray | None, *, biased: bool, order: np.ndarray | None = None
    ) -> None:
        """(inputs, outputs) → ``weight`` (outputs, inputs), and ``bias``.

        Args:
            biased: whether the layer has a bias in the model; zeros if the graph has none.
            order: the canonical index of each input, if the graph has them in another order.
        """
        if order is not None and not np.array_equal(order, np.arange(len(order))):
            kernel = kernel[np.argsort(order)]
        self.put(f"{name}.weight", kernel.T)
        if biased:
            self.put(f"{name}.bias", np.zeros(kernel.shape[1], kernel.dtype) if bias is None else bias)

    def norm(self, name: str, norm: Norm, order: np.ndarray | None = None) -> None:
        """``weight`` and ``bias``; ones and zeros where the graph has none."""
        width = norm.x.shape[-1]
        like = next((part.dtype for part in (norm.weight, norm.bias) if part is not None), np.dtype(np.float32))
        weight = np.ones(width, like) if norm.weight is None else norm.weight.reshape(-1)
        bias = np.zeros(width, like) if norm.bias is None else norm.bias.reshape(-1)
        if order is not None:
            weight, bias = weight[np.argsort(order)], bias[np.argsort(order)]
        self.put(f"{name}.weight", np.broadcast_to(weight, (width,)))
        if self.norm_bias:
            self.put(f"{name}.bias", np.broadcast_to(bias, (width,)))

    def block(self, at: str, attention: Branch, mlp: Branch, where: Placed, rotary: Rotary | None) -> None:
        """A block with attention and MLP in sequence, of a model with patches there and such rotary positions."""
        for number, branch in ((1, attention), (2, mlp)):
            norm = branch.before or branch.after or branch.outside
            assert norm is not None
            self.norm(f"{at}.norm{number}", norm)
            if branch.scale is not None:
                self.put(f"{at}.ls{number}.gamma", branch.scale)
        assert attention.attention is not None and mlp.mlp is not None
        layer = attention.attention
        self.joined(f"{at}.attn.qkv", [], layer.attention)
        self.query_norms(f"{at}.attn", layer.attention)
        if layer.attention.bias is not None:
            table = table_of(layer.attention.bias, where.grid, layer.attention.place)
            self.put(f"{at}.attn.relative_position_bias_table", table)
        if isinstance(rotary, MixedRotary) and layer.attention.query.turn is not None:
            frequencies = frequencies_of(layer.attention.query.turn, where)
            self.put(f"{at}.attn.rotary.freqs", frequencies.astype(layer.out.kernel.dtype))
        if layer.norm is not None:
            self.norm(f"{at}.attn.norm", layer.norm, layer.attention.order)
        self.linear(f"{at}.attn.proj", layer.out.kernel, layer.out.bias, biased=self.proj_bias,
                    order=layer.attention.order)  # fmt: skip
        self.mlp(f"{at}.mlp", mlp.mlp)

    def parallel_block(self, at: str, branch: Branch) -> None:
        """A block with attention and MLP in parallel."""
        assert branch.attention is not None and branch.mlp is not None and branch.before is not None
        layer, mlp = branch.attention, branch.mlp
        self.norm(f"{at}.in_norm", branch.before)
        kernel, bias = taken(mlp.first, mlp.columns)
        self.joined(f"{at}.in_proj", [(kernel, bias)], layer.attention)
        if not self.qkv_bias:
            self.put(f"{at}.mlp_bias", np.zeros(kernel.shape[1], kernel.dtype) if bias is None else bias)
        self.query_norms(at, layer.attention)
        self.linear(f"{at}.attn_out_proj", layer.out.kernel, layer.out.bias, biased=self.proj_bias,
                    order=layer.attention.order)  # fmt: skip
        self.linear(f"{at}.mlp_out_proj", mlp.second.kernel, mlp.second.bias, biased=self.proj_bias)
        if branch.scale is not None:
            self.put(f"{at}.ls.gamma", branch.scale)

    def query_norms(self, at: str, attention: Attention) -> None:
        """Norms of queries and keys."""
        for name, operand in (("q_norm", attention.query), ("k_norm", attention.key)):
            if operand.norm is not None:
                self.norm(f"{at}.{name}", operand.norm)

    def joined(self, name: str, before: list[tuple[np.ndarray, np.ndarray | None]], attention: Attention) -> None:
        """One layer for queries, keys and values, and before them the layers in ``before``."""
        operands = (attention.query, attention.key, attention.value)
        parts = [*before, *((it.kernel, it.bias) for it in operands)]
        kernels = [kernel for kernel, _ in parts]
        widths, dtype = [kernel.shape[1] for kernel in kernels], kernels[0].dtype
        self.later(f"{name}.weight", (sum(widths), kernels[0].shape[0]), dtype,
                   lambda: np.concatenate([kernel.T for kernel in kernels]))  # fmt: skip
        if self.qkv_bias:
            biases = [np.zeros(width, dtype) if bias is None else bias
                      for width, (_, bias) in zip(widths, parts, strict=True)]  # fmt: skip
            self.put(f"{name}.bias", np.concatenate(biases))

    def mlp(self, at: str, mlp: Mlp, *, biased: bool | None = None) -> None:
        """An MLP, gated or not."""
        biased = self.proj_bias if biased is None else biased
        kernel, bias = taken(mlp.first, mlp.columns)
        if mlp.value is None:
            self.linear(f"{at}.fc1", kernel, bias, biased=biased)
        else:
            value, value_bias = taken(*mlp.value)
            if mlp.columns is not None and mlp.value[1] is not None:
                self.later(f"{at}.fc1.weight", (2 * kernel.shape[1], kernel.shape[0]), kernel.dtype,
                           lambda: np.concatenate([kernel.T, value.T]))  # fmt: skip
                if biased:
                    biases = [
                        np.zeros(kernel.shape[1], kernel.dtype) if it is None else it for it in (bias, value_bias)
                    ]
                    self.put(f"{at}.fc1.bias", np.concatenate(biases))
            else:
                self.linear(f"{at}.fc1_g", kernel, bias, biased=biased)
                self.linear(f"{at}.fc1_x", value, value_bias, biased=biased)
        if mlp.norm is not None:
            self.norm(f"{at}.norm", mlp.norm)
        self.linear(f"{at}.fc2", mlp.second.kernel, mlp.second.bias, biased=biased)

    def pool(self, at: str, pool: AttentionPool, latent: np.ndarray, query_factor: float) -> None:
        """Attention pooling; a scale other than the usual one is multiplied into the queries."""
        q, k, v = pool.attention.query, pool.attention.key, pool.attention.value
        D = latent.size
        self.put(f"{at}.latent", latent.reshape(1, 1, D))
        kernel, bias = q.kernel, q.bias
        if query_factor != 1.0:
            factor = np.asarray(query_factor, kernel.dtype)
            kernel, bias = kernel * factor, None if bias is None else bias * factor
        self.linear(f"{at}.q", kernel, bias, biased=True)
        kernels = [it.kernel for it in (k, v)]
        self.later(f"{at}.kv.weight", (2 * D, kernels[0].shape[0]), kernels[0].dtype,
                   lambda: np.concatenate([kernel.T for kernel in kernels]))  # fmt: skip
        biases = [np.zeros(D, kernels[0].dtype) if it.bias is None else it.bias for it in (k, v)]
        self.put(f"{at}.kv.bias", np.concatenate(biases))
        self.linear(f"{at}.proj", pool.out.kernel, pool.out.bias, biased=True, order=pool.attention.order)
        self.norm(f"{at}.norm", pool.norm)
        self.mlp(f"{at}.mlp", pool.mlp, biased=True)

    def heads(self, head: Head) -> None:
        """The layers after pooling."""
        if head.hidden is not None:
            self.linear("pre_logits.fc", head.hidden.kernel, head.hidden.bias, biased=True)
        if head.head is not None:
            self.linear("head", head.head.kernel, head.head.bias, biased=True)
        if head.distilled is not None:
            self.linear("head_dist", head.distilled.kernel, head.distilled.bias, biased=True)


def taken(layer: Linear, columns: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Kernel and bias of some outputs."""
    if columns is None:
        return layer.kernel, layer.bias
    return layer.kernel[:, columns], None if layer.bias is None else layer.bias[columns]
