"""What the formats call the parts of a Vision Transformer, written down apart from ``conversion.formats``.

Every entry lists the names that a part goes by in one format or another of its kind; the first that is there counts.
Names of layers are without their leaf (``.weight``, ``/kernel``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

Candidates = tuple[str, ...]
NONE: Candidates = ()


@dataclass(frozen=True, kw_only=True)
class PartNames:
    """The defaults are timm's names. Parts of a block are named from the block's own name on."""

    patches: Candidates = ("patch_embed.proj",)
    patch_norm: Candidates = ("patch_embed.norm",)
    tokens: tuple[Candidates, ...] = (("cls_token",), ("dist_token",), ("reg_token", "register_tokens"))
    """In the order of the sequence."""
    positions: Candidates = ("pos_embed",)
    norm_pre: Candidates = ("norm_pre",)
    block: Candidates = ("blocks.{i}",)

    norm1: Candidates = ("norm1",)
    stacked: Candidates = ("attn.qkv",)
    """Queries, keys and values in one layer."""
    query: Candidates = NONE
    key: Candidates = NONE
    value: Candidates = NONE
    query_norm: Candidates = ("attn.q_norm",)
    key_norm: Candidates = ("attn.k_norm",)
    heads_norm: Candidates = ("attn.norm",)
    out: Candidates = ("attn.proj",)
    scale1: Candidates = ("ls1.gamma", "gamma_1")
    norm2: Candidates = ("norm2",)
    first: Candidates = ("mlp.fc1", "mlp.w12")
    """Twice as wide as what ``second`` reads where it holds a gate too, the gate in front."""
    gate: Candidates = ("mlp.fc1_g",)
    gated: Candidates = ("mlp.fc1_x",)
    hidden_norm: Candidates = ("mlp.norm",)
    second: Candidates = ("mlp.fc2", "mlp.w3")
    scale2: Candidates = ("ls2.gamma", "gamma_2")

    norm: Candidates = ("norm",)
    pool_latent: Candidates = ("attn_pool.latent",)
    pool_stacked: Candidates = NONE
    pool_query: Candidates = ("attn_pool.q",)
    pool_key_value: Candidates = ("attn_pool.kv",)
    pool_key: Candidates = NONE
    pool_value: Candidates = NONE
    pool_out: Candidates = ("attn_pool.proj",)
    pool_norm: Candidates = ("attn_pool.norm",)
    pool_first: Candidates = ("attn_pool.mlp.fc1",)
    pool_second: Candidates = ("attn_pool.mlp.fc2",)
    fc_norm: Candidates = ("fc_norm",)
    pre_logits: Candidates = ("pre_logits.fc",)
    head: Candidates = ("head",)
    head_dist: Candidates = ("head_dist",)
    projection: Candidates = NONE
    """A head that is a bare matrix, (D, K)."""


TIMM = PartNames()
MMPRETRAIN = replace(
    TIMM,
    patches=("patch_embed.projection",), norm_pre=("pre_norm",), block=("layers.{i}",),
    norm1=("ln1",), scale1=("attn.gamma1.weight",), norm2=("ln2",), scale2=("ffn.gamma2.weight",),
    first=("ffn.layers.0.0",), second=("ffn.layers.1",), norm=("ln1",), fc_norm=("ln2",),
    pre_logits=("head.layers.pre_logits",), head=("head.layers.head",), head_dist=("head.layers.head_dist",),
)  # fmt: skip
TORCHVISION = replace(
    TIMM,
    patches=("conv_proj",), tokens=(("class_token",),), positions=("encoder.pos_embedding",),
    block=("encoder.layers.encoder_layer_{i}",), norm1=("ln_1",), stacked=("self_attention.in_proj",),
    out=("self_attention.out_proj",), norm2=("ln_2",), first=("mlp.0", "mlp.linear_1"),
    second=("mlp.3", "mlp.linear_2"), norm=("encoder.ln",), pre_logits=("heads.pre_logits",),
    head=("heads.head", "heads.0", "heads"),
)  # fmt: skip
TORCH_ENCODER = replace(
    TIMM,
    block=("encoder.layers.{i}", "layers.{i}"), stacked=("self_attn.in_proj",), out=("self_attn.out_proj",),
    first=("linear1",), second=("linear2",), norm=("encoder.norm", "norm"),
)  # fmt: skip
OPENAI_CLIP = replace(
    TIMM,
    patches=("conv1",), tokens=(("class_embedding",),), positions=("positional_embedding",), norm_pre=("ln_pre",),
    block=("transformer.resblocks.{i}",), norm1=("ln_1",), stacked=("attn.in_proj",), out=("attn.out_proj",),
    norm2=("ln_2",), first=("mlp.c_fc",), second=("mlp.c_proj",), norm=("ln_post",), head=NONE, projection=("proj",),
)  # fmt: skip
HUGGINGFACE = replace(
    TIMM,
    patches=("embeddings.patch_embeddings.projection",),
    tokens=(("embeddings.cls_token",), ("embeddings.distillation_token",), ("embeddings.register_tokens",)),
    positions=("embeddings.position_embeddings",), block=("encoder.layer.{i}", "layers.{i}"),
    norm1=("layernorm_before", "norm1"), stacked=NONE,
    query=("attention.attention.query", "attention.q_proj"), key=("attention.attention.key", "attention.k_proj"),
    value=("attention.attention.value", "attention.v_proj"), out=("attention.output.dense", "attention.o_proj"),
    scale1=("layer_scale1.lambda1",), norm2=("layernorm_after", "norm2"),
    first=("intermediate.dense", "mlp.fc1", "mlp.weights_in"), gate=("mlp.gate_proj",), gated=("mlp.up_proj",),
    second=("output.dense", "mlp.fc2", "mlp.weights_out", "mlp.down_proj"), scale2=("layer_scale2.lambda1",),
    norm=("layernorm",), pre_logits=("pooler.dense",), head=("classifier", "cls_classifier"),
    head_dist=("distillation_classifier",),
)  # fmt: skip
HUGGINGFACE_TOWER = replace(
    TIMM,
    patches=("embeddings.patch_embedding",), tokens=(("embeddings.class_embedding",),),
    positions=("embeddings.position_embedding.weight",), norm_pre=("pre_layrnorm",), block=("encoder.layers.{i}",),
    norm1=("layer_norm1",), stacked=NONE, query=("self_attn.q_proj",), key=("self_attn.k_proj",),
    value=("self_attn.v_proj",), out=("self_attn.out_proj",), norm2=("layer_norm2",), norm=("post_layernorm",),
    pool_latent=("head.probe",), pool_stacked=("head.attention.in_proj",), pool_out=("head.attention.out_proj",),
    pool_norm=("head.layernorm",), pool_first=("head.mlp.fc1",), pool_second=("head.mlp.fc2",),
    head=("visual_projection", "classifier"),
)  # fmt: skip
"""CLIP and SigLIP."""

_ATTENTIONS = tuple(f"MultiHeadDotProductAttention_{number}" for number in (1, 0))
_MLPS = ("MlpBlock_3", "MlpBlock_0")


def _inside(modules: Candidates, part: str) -> Candidates:
    return tuple(f"{module}.{part}" for module in modules)


_POOLS = ("MAPHead_0.", "")
GOOGLE = replace(
    TIMM,
    patches=("embedding",), tokens=(("cls",),),
    positions=("Transformer.posembed_input.pos_embedding", "pos_embedding", "Transformer.pos_embedding"),
    block=("Transformer.encoderblock_{i}",), norm1=("LayerNorm_0",), stacked=NONE,
    query=_inside(_ATTENTIONS, "query"), key=_inside(_ATTENTIONS, "key"), value=_inside(_ATTENTIONS, "value"),
    out=_inside(_ATTENTIONS, "out"), norm2=("LayerNorm_2", "LayerNorm_1"),
    first=_inside(_MLPS, "Dense_0"), second=_inside(_MLPS, "Dense_1"), norm=("Transformer.encoder_norm",),
    pool_latent=tuple(f"{at}probe" for at in _POOLS), pool_key_value=NONE,
    pool_query=tuple(f"{at}MultiHeadDotProductAttention_0.query" for at in _POOLS),
    pool_key=tuple(f"{at}MultiHeadDotProductAttention_0.key" for at in _POOLS),
    pool_value=tuple(f"{at}MultiHeadDotProductAttention_0.value" for at in _POOLS),
    pool_out=tuple(f"{at}MultiHeadDotProductAttention_0.out" for at in _POOLS),
    pool_norm=tuple(f"{at}LayerNorm_0" for at in _POOLS),
    pool_first=tuple(f"{at}MlpBlock_0.Dense_0" for at in _POOLS),
    pool_second=tuple(f"{at}MlpBlock_0.Dense_1" for at in _POOLS),
    pre_logits=("pre_logits",),
)  # fmt: skip
"""Both counters of modules; ``/`` is written as a dot."""
