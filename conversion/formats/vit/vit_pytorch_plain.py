"""lucidrains' vit-pytorch, ``ViT`` and ``SimpleViT`` before 1.0, and their many copies: patches are only projected."""

from dataclasses import replace

from conversion.containers import torch_file
from conversion.format import Format
from conversion.formats.vit.vit_pytorch import BLOCK, EARLY, LATE, common_limits, facts, remarks
from conversion.second_reading.vit import SecondReading
from conversion.tensors.rules import Rule, Rules, module
from conversion.tensors.transforms import PixelRows
from vit_spec import ViTConfig


def cannot_hold(config: ViTConfig) -> list[str]:
    """A class token always, a norm on the pooled vector, a mean of all tokens."""
    return common_limits(
        config,
        final_norm=("pooled",),
        pool=("token", "avg"),
        pool_prefix=(True,) if config.pool == "avg" else (True, False),
    )


FORMAT = Format(
    name="vit-pytorch-plain",
    summary="lucidrains' vit-pytorch before 1.0, the state_dict of its ViT in a PyTorch file",
    names=Rules((
        Rule("cls_token", "cls_token"),
        Rule("pos_embed", "pos_embedding"),
        Rule("patch_embed.proj.weight", "to_patch_embedding.1.weight", PixelRows()),
        Rule("patch_embed.proj.bias", "to_patch_embedding.1.bias"),
        *EARLY,
        *LATE,
        *module("fc_norm", "mlp_head.0"),
        *module("head", "mlp_head.1"),
        *module("norm", "transformer.norm"),
        *module("head", "mlp_head"),
    )),
    signature=(
        ("transformer.layers.0.0.fn.to_qkv.weight", "transformer.layers.0.0.to_qkv.weight"),
        "to_patch_embedding.1.weight",
        "pos_embedding",
    ),
    conventions={"activation": "gelu", "norm_eps": 1e-5, "norm": "layernorm", "pool_prefix": True},
    shape_facts=facts,
    remarks=remarks,
    writer=torch_file.write,
    cannot_hold=cannot_hold,
    second_reading=SecondReading(
        names=replace(
            BLOCK, patches=("to_patch_embedding.1",), pixel_norm=(), patch_norm=(), tokens=(("cls_token",),),
            positions=("pos_embedding",),
        ),
        norm_eps=1e-5, activation="gelu", pool_prefix=True, flat_patches="channels last",
    ),
)  # fmt: skip
