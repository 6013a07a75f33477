"""torchvision's ``vit_b_16`` and its sisters: a state_dict in a PyTorch file."""

from conversion.containers import torch_file
from conversion.format import Format
from conversion.limits import margin_around_patches, not_square, unsupported_fields
from conversion.second_reading.vit import PartNames, SecondReading
from conversion.tensors.rules import Rule, Rules, module
from vit_spec import Preprocessing, ViTConfig

_BLOCK = "encoder.layers.encoder_layer_{i}"


def cannot_hold(config: ViTConfig) -> list[str]:
    """torchvision's code fixes the erf GELU and the epsilon 1e-6, and takes no image that patches do not fill."""
    complaints = unsupported_fields(config, norm_eps=(1e-6,), representation_size=(config.representation_size,))
    return complaints + not_square(config) + margin_around_patches(config)


FORMAT = Format(
    name="torchvision",
    summary="torchvision's vit_* state_dict in a PyTorch file",
    names=Rules((
        Rule("cls_token", "class_token"),
        Rule("pos_embed", "encoder.pos_embedding"),
        *module("patch_embed.proj", "conv_proj"),
        *module("blocks.{i}.norm1", f"{_BLOCK}.ln_1"),
        *(Rule(f"blocks.{{i}}.attn.qkv.{leaf}", f"{_BLOCK}.self_attention.in_proj_{leaf}")
          for leaf in ("weight", "bias")),
        *module("blocks.{i}.attn.proj", f"{_BLOCK}.self_attention.out_proj"),
        *module("blocks.{i}.norm2", f"{_BLOCK}.ln_2"),
        *module("blocks.{i}.mlp.fc1", f"{_BLOCK}.mlp.0"),
        *module("blocks.{i}.mlp.fc2", f"{_BLOCK}.mlp.3"),
        *module("blocks.{i}.mlp.fc1", f"{_BLOCK}.mlp.linear_1"),  # until torchvision 0.13
        *module("blocks.{i}.mlp.fc2", f"{_BLOCK}.mlp.linear_2"),
        *module("norm", "encoder.ln"),
        *module("pre_logits.fc", "heads.pre_logits"),
        *module("head", "heads.head"),
        *module("head", "heads"),  # where users replaced the heads by one layer
        *module("head", "heads.0"),
    )),
    signature=("encoder.layers.encoder_layer_0.self_attention.in_proj_weight",),
    conventions={
        "pool": "token", "pos_embed": "prefix", "pos_embed_resize": "torch-bicubic-corners",
        "activation": "gelu", "norm_eps": 1e-6,
    },
    preprocessing=Preprocessing(interpolation="bilinear"),
    writer=torch_file.write,
    cannot_hold=cannot_hold,
    second_reading=SecondReading(
        names=PartNames(
            patches=("conv_proj",), tokens=(("class_token",),), positions=("encoder.pos_embedding",),
            block=("encoder.layers.encoder_layer_{i}",),
            norm1=("ln_1",), qkv=("self_attention.in_proj",), out=("self_attention.out_proj",), norm2=("ln_2",),
            first=("mlp.0", "mlp.linear_1"), second=("mlp.3", "mlp.linear_2"),
            norm=("encoder.ln",), pre_logits=("heads.pre_logits",), head=("heads.head", "heads.0", "heads"),
        ),
        norm_eps=1e-6, activation="gelu", pool="token",
    ),
)  # fmt: skip
