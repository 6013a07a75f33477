"""OpenMMLab's mmpretrain (formerly mmcls) VisionTransformer; read only."""

from conversion.format import Format
from conversion.second_reading.vit import PartNames, SecondReading
from conversion.tensors.rules import Rule, Rules, module
from vit_spec import Preprocessing

FORMAT = Format(
    name="mmpretrain",
    summary="mmpretrain's names",
    names=Rules((
        *(Rule(name, name) for name in ("cls_token", "dist_token", "reg_token", "pos_embed")),
        *module("patch_embed.proj", "patch_embed.projection"),
        *module("norm_pre", "pre_norm"),
        *module("blocks.{i}.norm1", "layers.{i}.ln1"),
        *module("blocks.{i}.attn.qkv", "layers.{i}.attn.qkv"),
        *module("blocks.{i}.attn.proj", "layers.{i}.attn.proj"),
        Rule("blocks.{i}.ls1.gamma", "layers.{i}.attn.gamma1.weight"),
        *module("blocks.{i}.norm2", "layers.{i}.ln2"),
        *module("blocks.{i}.mlp.fc1", "layers.{i}.ffn.layers.0.0"),
        *module("blocks.{i}.mlp.fc2", "layers.{i}.ffn.layers.1"),
        Rule("blocks.{i}.ls2.gamma", "layers.{i}.ffn.gamma2.weight"),
        *module("norm", "ln1"),
        *module("fc_norm", "ln2"),
        *module("pre_logits.fc", "head.layers.pre_logits"),
        *module("head", "head.layers.head"),
        *module("head_dist", "head.layers.head_dist"),
    )),
    signature=("layers.0.ffn.layers.0.0.weight",),
    base="backbone.",
    conventions={"activation": "gelu", "norm_eps": 1e-6, "pos_embed_resize": "torch-bicubic"},
    preprocessing=Preprocessing(),
    second_reading=SecondReading(
        names=PartNames(
            patches=("patch_embed.projection",), tokens=(("cls_token",), ("dist_token",), ("reg_token",)),
            positions=("pos_embed",), norm_pre=("pre_norm",), block=("layers.{i}",),
            norm1=("ln1",), qkv=("attn.qkv",), out=("attn.proj",), scale1=("attn.gamma1.weight",), norm2=("ln2",),
            first=("ffn.layers.0.0",), second=("ffn.layers.1",), scale2=("ffn.gamma2.weight",),
            norm=("ln1",), fc_norm=("ln2",), pre_logits=("head.layers.pre_logits",), head=("head.layers.head",),
            head_dist=("head.layers.head_dist",),
        ),
        plain=False,
    ),
)  # fmt: skip
