"""A module around ``torch.nn.TransformerEncoder``: the encoder's names in blocks, timm's elsewhere.

An encoder alone is not a ViT: patch embedding, tokens, positions and head must lie beside it, as ``patch_embed.proj``,
``cls_token``, ``pos_embed``, ``head`` and so on. The encoder's attribute may be ``encoder``, ``transformer`` or
``transformer_encoder``; the last norm may be its ``norm`` or lie beside it. Its layers have
the same names for ``norm_first=True`` (``block="sequential"``) and ``norm_first=False`` (``block="original"``).
"""

from dataclasses import replace

from conversion.containers import torch_file
from conversion.format import Format
from conversion.formats.vit.timm import PARTS
from conversion.limits import unsupported_fields
from conversion.second_reading.vit import SecondReading
from conversion.tensors.rules import Rule, Rules, module
from vit_spec import ViTConfig


def _encoder(prefix: str) -> tuple[Rule, ...]:
    layer = f"{prefix}layers.{{i}}"
    return (
        *module("blocks.{i}.norm1", f"{layer}.norm1"),
        *(Rule(f"blocks.{{i}}.attn.qkv.{leaf}", f"{layer}.self_attn.in_proj_{leaf}") for leaf in ("weight", "bias")),
        *module("blocks.{i}.attn.proj", f"{layer}.self_attn.out_proj"),
        *module("blocks.{i}.norm2", f"{layer}.norm2"),
        *module("blocks.{i}.mlp.fc1", f"{layer}.linear1"),
        *module("blocks.{i}.mlp.fc2", f"{layer}.linear2"),
        *module("norm", f"{prefix}norm"),
    )


_BESIDE = (
    *(Rule(name, name) for name in ("cls_token", "dist_token", "reg_token", "pos_embed")),
    *(
        rule
        for name in (
            "patch_embed.proj",
            "patch_embed.pixel_norm",
            "patch_embed.norm",
            "norm_pre",
            "fc_norm",
            "pre_logits.fc",
            "head",
            "head_dist",
        )
        for rule in module(name, name)
    ),
)


def cannot_hold(config: ViTConfig) -> list[str]:
    """A layer has all biases or none; what lies around the encoder is up to the module that holds it."""
    around = ("class_token", "distilled", "register_tokens", "pos_embed", "patch_bias", "pixel_norm", "patch_norm",
              "pre_norm", "final_norm", "representation_size", "activation")  # fmt: skip
    return unsupported_fields(
        config,
        **{name: (getattr(config, name),) for name in around},
        block=("sequential", "original"),
        qkv_bias=(True, False),
        proj_bias=(config.qkv_bias,),
        norm_bias=(config.qkv_bias,),
        pool=("token", "avg", "token_avg"),
    )


FORMAT = Format(
    name="torch-encoder",
    summary="torch.nn.TransformerEncoder with a ViT's other tensors beside it, in a PyTorch file",
    names=Rules((*_encoder("encoder."), *_encoder(""), *_BESIDE)),
    signature=("layers.0.self_attn.in_proj_weight", "layers.0.linear1.weight"),
    either_order=True,
    conventions={"rotary": None},
    base=("encoder.", "transformer.", "transformer_encoder."),
    writer=torch_file.write,
    cannot_hold=cannot_hold,
    second_reading=SecondReading(
        names=replace(
            PARTS,
            block=("encoder.layers.{i}", "layers.{i}"), norm1=("norm1",), qkv=("self_attn.in_proj",),
            out=("self_attn.out_proj",), first=("linear1",), second=("linear2",), norm=("encoder.norm", "norm"),
        ),
        plain=False,
    ),
)  # fmt: skip
