"""Hugging Face ``Qwen3VLVisionModel`` and ``Qwen3_5VisionModel``, and the encoders of the whole models; read only.

Patches of videos span two frames; an image is the same frame twice, so its kernel is the sum over frames. What joins
neighbouring patches for the language model is set aside, and features are the mean of the patches.
"""

from collections.abc import Mapping
from typing import Any

from conversion.config_json.huggingface import vision_facts
from conversion.format import Format
from conversion.second_reading.vit import PartNames, SecondReading
from conversion.tensors.rules import Rule, Rules, module
from conversion.tensors.transforms import Frames, Leading
from vit_spec import Preprocessing
from vit_spec.preprocessing import HALF
from vit_spec.vit.rotary import AxialRotary

_JOINER = "what joins neighbouring patches for a language model"
_DEFAULTS = {
    "hidden_size": 1152, "depth": 27, "num_heads": 16, "in_channels": 3, "patch_size": 16,
    "hidden_act": "gelu_pytorch_tanh",
}  # fmt: skip
_THEIRS = {"depth": "num_hidden_layers", "num_heads": "num_attention_heads", "in_channels": "num_channels"}


def facts(config_json: Mapping[str, Any]) -> dict[str, Any]:
    """Under names of their own; the rows of the table show the image size."""
    told = {**_DEFAULTS, **config_json.get("vision_config", config_json)}
    named = {_THEIRS.get(name, name): told[name] for name in _DEFAULTS}
    theta = (told.get("rope_parameters") or {}).get("rope_theta", AxialRotary().theta)
    known = vision_facts(named, {}) | {"rotary": AxialRotary(theta=theta, pairs="halves")}
    del known["image_size"]
    return known


FORMAT = Format(
    name="huggingface-qwen3-vl",
    summary="Hugging Face Qwen3-VL or Qwen3.5, image encoder",
    names=Rules((
        Rule("patch_embed.proj.weight", "patch_embed.proj.weight", Frames()),
        Rule("patch_embed.proj.bias", "patch_embed.proj.bias"),
        Rule("pos_embed", "pos_embed.weight", Leading(1)),
        *(
            rule
            for name in ("norm1", "attn.qkv", "attn.proj", "norm2")
            for rule in module(f"blocks.{{i}}.{name}", f"blocks.{{i}}.{name}")
        ),
        *(rule for at in (1, 2) for rule in module(f"blocks.{{i}}.mlp.fc{at}", f"blocks.{{i}}.mlp.linear_fc{at}")),
    )),
    signature=("blocks.0.mlp.linear_fc1.weight", "patch_embed.proj.weight", "pos_embed.weight"),
    ranks={"patch_embed.proj.weight": 5},
    before=("timm",),
    classes={
        "qwen3_vl": ("Qwen3VLForConditionalGeneration", "Qwen3VLModel"),
        "qwen3_vl_moe": ("Qwen3VLMoeForConditionalGeneration", "Qwen3VLMoeModel"),
        "qwen3_vl_vision": ("Qwen3VLVisionModel",),
        "qwen3_vl_moe_vision": ("Qwen3VLMoeVisionModel",),
        "qwen3_5": ("Qwen3_5ForConditionalGeneration", "Qwen3_5Model"),
        "qwen3_5_moe": ("Qwen3_5MoeForConditionalGeneration", "Qwen3_5MoeModel"),
        "qwen3_5_vision": ("Qwen3_5VisionModel",),
        "qwen3_5_moe_vision": ("Qwen3_5MoeVisionModel",),
    },
    set_aside={"merger.*": _JOINER, "deepstack_merger_list.*": _JOINER},
    conventions={
        "pool": "avg", "final_norm": "none", "pos_embed": "patch", "pos_embed_resize": "scipy-zoom", "norm_eps": 1e-6,
        "norm": "layernorm", "activation": "gelu_tanh", "rotary": AxialRotary(pairs="halves"),
    },
    facts=facts,
    remarks=lambda table: ["an image is every frame at once: the kernels of frames are added, in the file's dtype"],
    preprocessing=Preprocessing(mean=HALF, std=HALF, resize="squash"),
    second_reading=SecondReading(
        names=PartNames(
            patches=("patch_embed.proj",), positions=("pos_embed.weight",), block=("blocks.{i}",), norm1=("norm1",),
            qkv=("attn.qkv",), out=("attn.proj",), norm2=("norm2",), first=("mlp.linear_fc1",),
            second=("mlp.linear_fc2",),
        ),
        norm_eps=1e-6, pool="avg", rotary=AxialRotary(pairs="halves"),
    ),
)  # fmt: skip
