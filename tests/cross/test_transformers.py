"""Hugging Face's models, built from small configs with random weights, answer the same as both of ours.

Their parameters are named here as transformers >= 5.9 has them in memory; the files' names, which differ, are the
business of ``conversion``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import transformers

from tests.random_weights import random_images, random_params
from tests.small_configs import BASE
from tests.vit_jax.models import jax_output
from tests.vit_torch.models import torch_model
from vit_spec import ViTConfig

Names = Mapping[str, str | tuple[str, ...]]

ATTENTION: Names = {
    "attn.qkv": ("attention.q_proj", "attention.k_proj", "attention.v_proj"),
    "attn.proj": "attention.o_proj",
}
MLP: Names = {"mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}
VIT_BLOCK: Names = ATTENTION | MLP | {"norm1": "layernorm_before", "norm2": "layernorm_after"}
VIT: Names = {
    "cls_token": "embeddings.cls_token",
    "dist_token": "embeddings.distillation_token",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj": "embeddings.patch_embeddings.projection",
    "norm": "layernorm",
}
DINO_BLOCK: Names = ATTENTION | MLP | {"norm1": "norm1", "norm2": "norm2"}
DINO_BLOCK |= {"ls1.gamma": "layer_scale1.lambda1", "ls2.gamma": "layer_scale2.lambda1"}
GATED: Names = {"mlp.fc1_g": "mlp.gate_proj", "mlp.fc1_x": "mlp.up_proj", "mlp.fc2": "mlp.down_proj"}
PACKED: Names = {"mlp.fc1": ("mlp.gate_proj", "mlp.up_proj"), "mlp.fc2": "mlp.down_proj"}
CLIP_BLOCK: Names = {
    "attn.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attn.proj": "self_attn.out_proj",
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
} | MLP
TOWER: Names = {"pos_embed": "embeddings.position_embedding.weight", "patch_embed.proj": "embeddings.patch_embedding"}

SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "patch_size": 4}
SQUARE = BASE.replace(image_size=12)
FEATURES = SQUARE.replace(num_classes=0)


@dataclass(frozen=True)
class Case:
    """A model of theirs, what to read from its answer, ours, and the names."""

    theirs: Callable[[], torch.nn.Module]
    answer: Callable[[transformers.utils.ModelOutput], torch.Tensor]
    ours: ViTConfig
    names: Names
    block: Names
    blocks_at: str
    at: str = ""
    atol: float = 1e-12


def class_token(output: transformers.utils.ModelOutput) -> torch.Tensor:
    return output.last_hidden_state[:, 0]


CASES = {
    "ViTForImageClassification": Case(
        lambda: transformers.ViTForImageClassification(
            transformers.ViTConfig(**SIZES, intermediate_size=41, image_size=[12, 20], num_labels=7)
        ),
        lambda output: output.logits,
        BASE.replace(norm_eps=1e-12),
        VIT | {"head": "classifier"},
        VIT_BLOCK,
        "layers.{}.",
        "vit.",
    ),
    "ViTModel with pooler": Case(
        lambda: transformers.ViTModel(
            transformers.ViTConfig(
                **SIZES, intermediate_size=41, image_size=[12, 20], qkv_bias=False, hidden_act="gelu_new"
            )
        ),
        lambda output: output.pooler_output,
        BASE.replace(
            norm_eps=1e-12, num_classes=0, representation_size=24, qkv_bias=False, activation="gelu_tanh"
        ),
        VIT | {"pre_logits.fc": "pooler.dense"},
        VIT_BLOCK,
        "layers.{}.",
    ),
    "DeiTForImageClassificationWithTeacher": Case(
        lambda: transformers.DeiTForImageClassificationWithTeacher(
            transformers.DeiTConfig(**SIZES, intermediate_size=41, image_size=[12, 20], num_labels=7)
        ),
        lambda output: output.logits,
        BASE.replace(norm_eps=1e-12, distilled=True),
        VIT | {"head": "cls_classifier", "head_dist": "distillation_classifier"},
        VIT_BLOCK,
        "layers.{}.",
        "deit.",
    ),
    "Dinov2Model": Case(
        lambda: transformers.Dinov2Model(transformers.Dinov2Config(**SIZES, mlp_ratio=2, image_size=12)),
        class_token,
        FEATURES.replace(mlp_hidden_dim=48, layer_scale=1.0),
        VIT,
        DINO_BLOCK,
        "encoder.layer.{}.",
    ),
    "Dinov2Model, SwiGLU": Case(
        lambda: transformers.Dinov2Model(
            transformers.Dinov2Config(**SIZES, mlp_ratio=2, image_size=12, use_swiglu_ffn=True)
        ),
        class_token,
        FEATURES.replace(mlp_hidden_dim=32, layer_scale=1.0, mlp="swiglu", activation="silu"),
        VIT,
        DINO_BLOCK | GATED,
        "encoder.layer.{}.",
    ),
    "Dinov2WithRegistersModel, packed SwiGLU": Case(
        lambda: transformers.Dinov2WithRegistersModel(
            transformers.Dinov2WithRegistersConfig(
                **SIZES, mlp_ratio=2, image_size=12, use_swiglu_ffn=True, num_register_tokens=3
            )
        ),
        class_token,
        FEATURES.replace(
            mlp_hidden_dim=32, layer_scale=1.0, mlp="swiglu_packed", activation="silu", register_tokens=3
        ),
        VIT | {"reg_token": "embeddings.register_tokens"},
        DINO_BLOCK | PACKED,
        "encoder.layer.{}.",
    ),
    "SiglipVisionModel": Case(
        lambda: transformers.SiglipVisionModel(
            transformers.SiglipVisionConfig(**SIZES, intermediate_size=41, image_size=12)
        ),
        lambda output: output.pooler_output,
        FEATURES.replace(class_token=False, pool="map", activation="gelu_tanh"),
        TOWER
        | {
            "norm": "post_layernorm",
            "attn_pool.latent": "head.probe",
            "attn_pool.proj": "head.attention.out_proj",
            "attn_pool.norm": "head.layernorm",
            "attn_pool.mlp.fc1": "head.mlp.fc1",
            "attn_pool.mlp.fc2": "head.mlp.fc2",
        },
        CLIP_BLOCK,
        "encoder.layers.{}.",
    ),
    "CLIPVisionModel": Case(
        lambda: transformers.CLIPVisionModel(
            transformers.CLIPVisionConfig(**SIZES, intermediate_size=41, image_size=12)
        ),
        lambda output: output.pooler_output,
        FEATURES.replace(
            pre_norm=True, patch_bias=False, activation="quick_gelu", norm_eps=1e-5, final_norm="pooled"
        ),
        TOWER | {"cls_token": "embeddings.class_embedding", "norm_pre": "pre_layrnorm", "fc_norm": "post_layernorm"},
        CLIP_BLOCK,
        "encoder.layers.{}.",
    ),
    "Aimv2VisionModel": Case(
        lambda: transformers.Aimv2VisionModel(
            transformers.Aimv2VisionConfig(**SIZES, intermediate_size=41, image_size=12, use_head=False)
        ),
        lambda output: output.last_hidden_state.mean(1),
        FEATURES.replace(
            class_token=False, pool="avg", norm="rmsnorm", norm_bias=False, norm_eps=1e-5, patch_norm=True,
            qkv_bias=False, proj_bias=False, mlp="swiglu", activation="silu", pos_embed="patch",
        ),
        {
            "pos_embed": "embeddings.position_embedding.weight",
            "patch_embed.proj": "embeddings.patch_embed",
            "patch_embed.norm": "embeddings.rms_norm",
            "norm": "rms_norm",
        },
        {
            "attn.qkv": ("attention.q_proj", "attention.k_proj", "attention.v_proj"),
            "attn.proj": "attention.out_proj",
            "norm1": "rms_norm1",
            "norm2": "rms_norm2",
            "mlp.fc1_g": "ffn.gate_proj",
            "mlp.fc1_x": "ffn.up_proj",
            "mlp.fc2": "ffn.down_proj",
        },
        "encoder.layers.{}.",
        atol=1e-5,  # their RMSNorm is in float32 whatever the model is in: measured 1.7e-7
    ),
}  # fmt: skip


def translated(case: Case, params: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Our arrays under their names."""
    result: dict[str, np.ndarray] = {}
    for name, array in params.items():
        if name.startswith(("attn_pool.q.", "attn_pool.kv.")):
            continue
        at, table, local = case.at, case.names, name
        if name.startswith("blocks."):
            _, number, local = name.split(".", 2)
            at, table = case.at + case.blocks_at.format(number), case.block
        elif name.startswith(("head", "pre_logits")):
            at = ""
        module, _, leaf = local.rpartition(".")
        found = table[local] if local in table else table[module]
        targets = (found,) if isinstance(found, str) else found
        parts = np.split(array, len(targets)) if len(targets) > 1 else [array]
        for target, part in zip(targets, parts, strict=True):
            result[at + target + ("" if local in table else f".{leaf}")] = part
    for leaf in ("weight", "bias"):
        if f"attn_pool.q.{leaf}" in params:
            packed = np.concatenate([params[f"attn_pool.q.{leaf}"], params[f"attn_pool.kv.{leaf}"]])
            result[f"head.attention.in_proj_{leaf}"] = packed
    return result


def loaded(case: Case, params: Mapping[str, np.ndarray]) -> torch.nn.Module:
    """Their model with our weights, float64; only a mask token, used in pre-training alone, may be left over."""
    model = case.theirs().double().eval()
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    state = {name: torch.tensor(array).reshape(shapes[name]) for name, array in translated(case, params).items()}
    missing, surplus = model.load_state_dict(state, strict=False)
    assert not surplus
    assert set(missing) <= {"embeddings.mask_token"}
    return model


@pytest.mark.parametrize("name", CASES)
def test_both_models_agree_with_transformers(name: str):
    """Oracle: transformers, in float64. Measured 1.8e-15 at most on values of order 1."""
    case, seed = CASES[name], 5
    params, images = random_params(case.ours, seed), random_images(case.ours, 2, seed)
    with torch.no_grad():
        expected = case.answer(loaded(case, params)(pixel_values=torch.tensor(images))).numpy()
        ours = torch_model(case.ours, params).eval()(torch.tensor(images)).numpy()
    assert expected.dtype == np.float64
    assert 0.3 < np.abs(expected).max() < 20
    np.testing.assert_allclose(ours, expected, rtol=0, atol=case.atol)
    np.testing.assert_allclose(jax_output(case.ours, seed, 2, "float64"), expected, rtol=0, atol=case.atol)
