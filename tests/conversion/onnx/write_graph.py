"""A Vision Transformer as an ONNX graph, written by hand in the many ways that exporters write it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from vit_spec import ViTConfig


@dataclass(frozen=True)
class Style:
    """How each part is written; any choice computes the same model."""

    patches: str = "conv"
    """``conv``, ``reshape`` with a matrix, ``last`` for images (B, H, W, C), ``pixels`` normalised in the graph,
    ``extract`` (a convolution with an identity in front of a matrix, as TensorFlow's ``extract_patches``)."""
    norm: str = "node"
    """``node``, ``spelled``, ``twice`` (the difference computed twice), ``batchnorm`` as Keras does it, ``skip``."""
    qkv: str = "fused"
    """``fused``, ``split``, ``separate``, ``heads`` (einsum, a matrix for each head), ``attention`` (onnxruntime's)."""
    scale: str = "scores"
    """``query``, ``both``, ``scores``, ``divided``, ``weights`` (folded into those of queries), ``shifted`` (one number
    is added to all logits), ``keys`` (keys times queries, and the softmax over the axis of keys, as in Keras)."""
    activation: str = "spelled"
    """``spelled``, ``node``, ``fused`` (onnxruntime's), ``erfc`` (TensorFlow's, which no ONNX has)."""
    linear: str = "matmul"
    """``matmul``, ``gemm``, ``transposed`` (weights as PyTorch has them), ``cast``, ``left`` (weights on the left)."""
    pool: str = "gather"
    """``gather``, ``slice``, ``early`` (before the last norm)."""
    end: str = ""
    """``softmax`` after the head."""
    opset: int = 17
    names: bool = True
    """Whether weights keep their names."""


@dataclass
class Writer:
    """Collects nodes and constants."""

    style: Style
    batch: int = 1
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)

    def op(self, kind: str, *inputs: Any, outputs: int = 1, **attributes: Any) -> Any:
        """Add a node; arrays become constants. Returns the name of its output, or of all if there are several."""
        names = [it if isinstance(it, str) else self.constant(it) for it in inputs]
        domain, _, name = kind.rpartition("::")
        made = [f"v{len(self.nodes)}_{at}" for at in range(outputs)]
        self.nodes.append(helper.make_node(name, names, made, domain=domain, **attributes))
        return made[0] if outputs == 1 else made

    def constant(self, array: Any, name: str = "") -> str:
        array = np.asarray(array)
        array = array.astype(np.float32) if array.dtype == np.float64 else array
        name = name if name and self.style.names else f"c{len(self.constants)}"
        self.constants[name] = array
        return name

    def ints(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def reshape(self, x: str, *shape: int) -> str:
        return self.op("Reshape", x, self.ints(*shape))

    def axes(self, kind: str, x: str, *axes: int, **more: Any) -> str:
        """A reduction, with axes as an input from version 18 on."""
        if self.style.opset >= 18:
            return self.op(kind, x, self.ints(*axes), **more)
        return self.op(kind, x, axes=list(axes), **more)


def vit_graph(
    params: dict[str, np.ndarray], config: ViTConfig, style: Style = Style(), batch: int = 1
) -> onnx.ModelProto:
    """A plain pre-norm ViT with class token, positions for all tokens, GELU, and one head."""
    w, c, D = Writer(style, batch), config, config.embed_dim
    for name, array in params.items() if style.names else ():
        w.constants[name] = array
    x = _patches(w, params, c)
    cls = w.op("Expand", params["cls_token"], w.ints(batch, 1, D))
    x = w.op("Add", w.op("Concat", cls, x, axis=1), params["pos_embed"])
    for at in range(c.depth):
        p = {
            name.removeprefix(f"blocks.{at}."): array
            for name, array in params.items()
            if name.startswith(f"blocks.{at}.")
        }
        y = _attention(w, _norm(w, x, p["norm1.weight"], p["norm1.bias"], c), p, c)
        if style.norm == "skip":
            y, _, _, x = w.op("com.microsoft::SkipLayerNormalization", y, x, p["norm2.weight"], p["norm2.bias"],
                              outputs=4, epsilon=c.norm_eps)  # fmt: skip
        else:
            x = w.op("Add", x, y)
            y = _norm(w, x, p["norm2.weight"], p["norm2.bias"], c)
        y = _linear(w, _activation(w, y, p, c), p["mlp.fc2.weight"], p["mlp.fc2.bias"])
        x = w.op("Add", y, x)
    norm = (params["norm.weight"], params["norm.bias"])
    if style.pool == "early":
        x = _norm(w, w.op("Gather", x, np.array(0), axis=1), *norm, c)
    elif style.pool == "slice":
        x = _norm(w, x, *norm, c)
        x = w.op("Squeeze", w.op("Slice", x, w.ints(0), w.ints(1), w.ints(1)), w.ints(1))
    else:
        x = w.op("Gather", _norm(w, x, *norm, c), np.array(0), axis=1)
    y = w.op("Gemm", x, params["head.weight"], params["head.bias"], transB=1)
    y = w.op("Softmax", y, axis=-1) if style.end == "softmax" else y
    return finished(w, c, y)


def finished(w: Writer, c: ViTConfig, output: str) -> onnx.ModelProto:
    """The model of what was written."""
    H, W, C = *c.image_size, c.in_channels
    shape = [w.batch, H, W, C] if w.style.patches == "last" else [w.batch, C, H, W]
    graph = helper.make_graph(
        w.nodes, "vit", [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.array(array, order="C"), name) for name, array in w.constants.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", w.style.opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="test")


def _patches(w: Writer, params: dict[str, np.ndarray], c: ViTConfig) -> str:
    kernel, bias = params["patch_embed.proj.weight"], params["patch_embed.proj.bias"]
    D, C, P, _ = kernel.shape
    h, v = c.grid_size
    x = "image"
    if w.style.patches == "reshape":
        x = w.op("Transpose", w.reshape(x, w.batch, C, h, P, v, P), perm=[0, 2, 4, 3, 5, 1])
        x = w.reshape(x, w.batch, h * v, P * P * C)  # height, width, channels, as einops users have it
        return w.op("Add", w.op("MatMul", x, kernel.transpose(2, 3, 1, 0).reshape(-1, D)), bias)
    if w.style.patches == "extract":
        eye = w.op("EyeLike", w.op("ConstantOfShape", w.ints(C * P * P, C * P * P)))
        x = w.op("Conv", x, w.reshape(eye, C * P * P, C, P, P), strides=[P, P], kernel_shape=[P, P])
        x = w.op("Transpose", w.reshape(x, w.batch, C * P * P, -1), perm=[0, 2, 1])
        return w.op("Add", w.op("MatMul", x, kernel.reshape(D, -1).T), bias)
    if w.style.patches == "last":
        x = w.op("Transpose", x, perm=[0, 3, 1, 2])
    if w.style.patches == "pixels":  # undone again: the model is the same
        mean, std = np.array([0.4, 0.5, 0.6])[:, None, None], np.array([0.2, 0.25, 0.3])[:, None, None]
        x = w.op("Div", w.op("Sub", x, mean), std)
        kernel = kernel * std.astype(np.float32)
        bias = bias + (kernel / std * mean).sum((1, 2, 3))
    x = w.op("Conv", x, kernel, bias, strides=[P, P], kernel_shape=[P, P])
    return w.op("Transpose", w.reshape(x, w.batch, D, -1), perm=[0, 2, 1])


def _linear(w: Writer, x: str, weight: np.ndarray, bias: np.ndarray) -> str:
    rows = w.style.linear
    if rows == "gemm":
        flat = w.op("Gemm", w.reshape(x, -1, weight.shape[1]), weight, bias, transB=1)
        return w.reshape(flat, w.batch, -1, weight.shape[0])
    if rows == "left":
        y = w.op("MatMul", weight, w.op("Transpose", x, perm=[0, 2, 1]))
        return w.op("Transpose", w.op("Add", y, bias[:, None]), perm=[0, 2, 1])
    kernel: Any = weight.T
    if rows == "transposed":
        kernel = w.op("Transpose", weight, perm=[1, 0])
    elif rows == "cast":
        kernel = w.op("Cast", w.op("Identity", weight.T.astype(np.float64).astype(np.float32)), to=TensorProto.FLOAT)
    return w.op("Add", bias, w.op("MatMul", x, kernel))


def _norm(w: Writer, x: str, weight: np.ndarray, bias: np.ndarray, c: ViTConfig) -> str:
    if w.style.norm in ("node", "skip"):
        return w.op("LayerNormalization", x, weight, bias, axis=-1, epsilon=c.norm_eps)
    mean = w.axes("ReduceMean", x, -1)
    centred = w.op("Sub", x, mean)
    again = w.op("Sub", x, mean) if w.style.norm != "spelled" else centred
    variance = w.axes("ReduceMean", w.op("Mul", again, again), -1)
    root = w.op("Sqrt", w.op("Add", variance, np.float32(c.norm_eps)))
    if w.style.norm == "batchnorm":
        factor = w.op("Mul", w.op("Reciprocal", root), weight)
        return w.op("Add", w.op("Mul", x, factor), w.op("Sub", bias, w.op("Mul", mean, factor)))
    return w.op("Add", w.op("Mul", w.op("Div", centred, root), weight), bias)


def _attention(w: Writer, x: str, p: dict[str, np.ndarray], c: ViTConfig) -> str:
    D, h, d, N, s = c.embed_dim, c.num_heads, c.head_dim, c.num_tokens, w.style
    weight, bias = p["attn.qkv.weight"], p["attn.qkv.bias"]
    if s.scale == "weights":
        factor = np.concatenate([np.full(D, d**-0.5), np.ones(2 * D)]).astype(np.float32)
        weight, bias = weight * factor[:, None], bias * factor
    if s.qkv == "attention":
        heads = w.op("com.microsoft::Attention", x, weight.T, bias, num_heads=h)
        return _linear(w, heads, p["attn.proj.weight"], p["attn.proj.bias"])
    if s.qkv == "fused":
        qkv = w.op("Transpose", w.reshape(_linear(w, x, weight, bias), w.batch, N, 3, h, d), perm=[2, 0, 3, 1, 4])
        q, k, v = (w.op("Gather", qkv, np.array(at), axis=0) for at in range(3))
    elif s.qkv == "split":
        parts = w.op("Split", _linear(w, x, weight, bias), w.ints(D, D, D), axis=2, outputs=3)
        q, k, v = (w.op("Transpose", w.reshape(part, w.batch, N, h, d), perm=[0, 2, 1, 3]) for part in parts)
    elif s.qkv == "heads":
        kernels, biases = np.split(weight, 3), np.split(bias, 3)
        q, k, v = (
            w.op("Transpose", w.op("Add", w.op("Einsum", x, a.T.reshape(D, h, d), equation="abc,cde->abde"),
                                   b.reshape(h, d)), perm=[0, 2, 1, 3])
            for a, b in zip(kernels, biases, strict=True)
        )  # fmt: skip
    else:
        q, k, v = (
            w.op("Transpose", w.reshape(_linear(w, x, a, b), w.batch, N, h, d), perm=[0, 2, 1, 3])
            for a, b in zip(np.split(weight, 3), np.split(bias, 3), strict=True)
        )
    if s.scale == "keys":
        q = w.op("Mul", w.op("Transpose", q, perm=[0, 1, 3, 2]), np.float32(d**-0.5))
        weights = w.op("Softmax", w.op("MatMul", k, q), axis=2)
        y = w.op("MatMul", w.op("Transpose", weights, perm=[0, 1, 3, 2]), v)
        y = w.reshape(w.op("Transpose", y, perm=[0, 2, 1, 3]), w.batch, N, D)
        return _linear(w, y, p["attn.proj.weight"], p["attn.proj.bias"])
    k = w.op("Transpose", k, perm=[0, 1, 3, 2])
    if s.scale in ("query", "both"):
        q = w.op("Mul", q, np.float32(d**-0.5 if s.scale == "query" else d**-0.25))
        k = w.op("Mul", k, np.float32(d**-0.25)) if s.scale == "both" else k
    scores = w.op("MatMul", q, k)
    if s.scale in ("scores", "shifted"):
        scores = w.op("Mul", np.float32(d**-0.5), scores)
    if s.scale == "shifted":
        scores = w.op("Add", scores, np.float32(0.25))
    if s.scale == "divided":
        scores = w.op("Div", scores, np.float32(d**0.5))
    y = w.op("MatMul", w.op("Softmax", scores, axis=-1), v)
    y = w.reshape(w.op("Transpose", y, perm=[0, 2, 1, 3]), w.batch, N, D)
    return _linear(w, y, p["attn.proj.weight"], p["attn.proj.bias"])


def _activation(w: Writer, x: str, p: dict[str, np.ndarray], c: ViTConfig) -> str:
    weight, bias, tanh = p["mlp.fc1.weight"], p["mlp.fc1.bias"], c.activation == "gelu_tanh"
    if w.style.activation == "fused":
        y = w.op("MatMul", x, weight.T)
        return w.op(f"com.microsoft::{'FastGelu' if tanh else 'BiasGelu'}", y, bias)
    y = _linear(w, x, weight, bias)
    if w.style.activation == "node":
        return w.op("Gelu", y, approximate="tanh" if tanh else "none")
    half, one = np.float32(0.5), np.float32(1)
    if tanh:
        cube = w.op("Mul", w.op("Pow", y, np.float32(3)), np.float32(0.044715))
        inner = w.op("Tanh", w.op("Mul", w.op("Add", y, cube), np.float32(np.sqrt(2 / np.pi))))
        return w.op("Mul", w.op("Mul", half, y), w.op("Add", inner, one))
    if w.style.activation == "erfc":
        inner = w.op("Erfc", w.op("Mul", w.op("Neg", y), np.float32(np.sqrt(0.5))))
        return w.op("Mul", w.op("Mul", half, y), inner)
    inner = w.op("Erf", w.op("Div", y, np.float32(np.sqrt(2))))
    return w.op("Mul", w.op("Mul", y, w.op("Add", inner, one)), half)
