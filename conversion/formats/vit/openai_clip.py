"""OpenAI's CLIP and OpenCLIP in their own names (``visual.*``), vision half; read only.

The activation is not in the file: QuickGELU for OpenAI's weights, the erf GELU for most of OpenCLIP's.
"""

from conversion.format import Format
from conversion.second_reading.vit import PartNames, SecondReading
from conversion.tensors.rules import Rule, Rules, module
from conversion.tensors.transforms import Leading, WithoutBias
from vit_spec import Preprocessing
from vit_spec.preprocessing import CLIP_MEAN, CLIP_STD

_BLOCK = "transformer.resblocks.{i}"

FORMAT = Format(
    name="openai-clip",
    summary="OpenAI's CLIP names, vision half",
    names=Rules((
        Rule("cls_token", "class_embedding", Leading(2)),
        Rule("pos_embed", "positional_embedding", Leading(1)),
        Rule("patch_embed.proj.weight", "conv1.weight"),
        *module("norm_pre", "ln_pre"),
        *module("blocks.{i}.norm1", f"{_BLOCK}.ln_1"),
        *(Rule(f"blocks.{{i}}.attn.qkv.{leaf}", f"{_BLOCK}.attn.in_proj_{leaf}") for leaf in ("weight", "bias")),
        *module("blocks.{i}.attn.proj", f"{_BLOCK}.attn.out_proj"),
        *module("blocks.{i}.norm2", f"{_BLOCK}.ln_2"),
        *module("blocks.{i}.mlp.fc1", f"{_BLOCK}.mlp.c_fc"),
        *module("blocks.{i}.mlp.fc2", f"{_BLOCK}.mlp.c_proj"),
        *module("norm", "ln_post"),
        Rule(("head.weight", "head.bias"), "proj", WithoutBias("head", transposed=True, remedy="--head drop")),
    )),
    signature=("conv1.weight", "class_embedding", "transformer.resblocks.0.ln_1.weight", "ln_post.weight"),
    conventions={"pool": "token", "pos_embed": "prefix", "pos_embed_resize": "torch-bicubic", "norm_eps": 1e-5},
    preprocessing=Preprocessing(mean=CLIP_MEAN, std=CLIP_STD, crop_fraction=1.0),
    second_reading=SecondReading(
        names=PartNames(
            patches=("conv1",), tokens=(("class_embedding",),), positions=("positional_embedding",),
            norm_pre=("ln_pre",), block=("transformer.resblocks.{i}",),
            norm1=("ln_1",), qkv=("attn.in_proj",), out=("attn.out_proj",), norm2=("ln_2",), first=("mlp.c_fc",),
            second=("mlp.c_proj",),
            norm=("ln_post",), projection=("proj",),
        ),
        norm_eps=1e-5, pool="token",
    ),
)  # fmt: skip
