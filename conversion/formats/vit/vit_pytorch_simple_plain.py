"""lucidrains' vit-pytorch, ``SimpleViT`` before 1.0: patches are only projected."""

from dataclasses import replace

from conversion.containers import torch_file
from conversion.format import Format
from conversion.formats.vit.vit_pytorch import BLOCK, common_limits, facts, remarks
from conversion.formats.vit.vit_pytorch_simple import BLOCKS, positions, width
from conversion.second_reading.vit import SecondReading
from conversion.tensors.rules import Rule, Rules, module
from conversion.tensors.transforms import PixelRows
from vit_spec import ViTConfig


def cannot_hold(config: ViTConfig) -> list[str]:
    """The mean of the patches, normed behind the pooling."""
    return width(config) + common_limits(
        config, class_token=(False,), pool=("avg",), pos_embed=("patch", "prefix"), final_norm=("pooled",)
    )


FORMAT = Format(
    name="vit-pytorch-simple-plain",
    summary="lucidrains' vit-pytorch before 1.0, the state_dict of its SimpleViT in a PyTorch file",
    names=Rules((
        Rule("patch_embed.proj.weight", "to_patch_embedding.1.weight", PixelRows()),
        Rule("patch_embed.proj.bias", "to_patch_embedding.1.bias"),
        *BLOCKS,
        *module("fc_norm", "linear_head.0"),
        *module("head", "linear_head.1"),
    )),
    signature=(
        "transformer.layers.0.0.to_out.weight", "transformer.layers.0.1.net.3.weight", "to_patch_embedding.1.weight",
    ),
    conventions={"activation": "gelu", "norm_eps": 1e-5, "norm": "layernorm", "pool": "avg", "pos_embed": "patch"},
    shape_facts=facts,
    computed=positions,
    remarks=remarks,
    writer=torch_file.write,
    cannot_hold=cannot_hold,
    second_reading=SecondReading(
        names=replace(BLOCK, patches=("to_patch_embedding.1",), pixel_norm=(), patch_norm=()),
        norm_eps=1e-5, activation="gelu", pool="avg", flat_patches="channels last", sincos="to the last",
    ),
)  # fmt: skip
