"""facebookresearch/perception_models: the image tower of a Perception Encoder, in names that CLIP's descend from.

The authors' core models pool by attention with eight heads; those for language and spatial tasks end without a norm.
"""

from collections.abc import Mapping
from math import isqrt

from conversion.containers import torch_file
from conversion.format import Format
from conversion.limits import not_square, unsupported_fields
from conversion.second_reading.vit import PartNames, SecondReading
from conversion.tensors.rules import Rule, Rules, module
from conversion.tensors.transforms import Divided, Leading, WithoutBias
from vit_spec import Preprocessing, ViTConfig
from vit_spec.preprocessing import HALF
from vit_spec.vit.rotary import AxialRotary

_BLOCK = "transformer.resblocks.{i}"
_RULES = (
    Rule("cls_token", "class_embedding", Leading(2)),
    Rule("pos_embed", "positional_embedding", Leading(1)),
    Rule("patch_embed.proj.weight", "conv1.weight"),
    *module("norm_pre", "ln_pre"),
    *module("blocks.{i}.norm1", f"{_BLOCK}.ln_1"),
    *(Rule(f"blocks.{{i}}.attn.qkv.{leaf}", f"{_BLOCK}.attn.in_proj_{leaf}") for leaf in ("weight", "bias")),
    *module("blocks.{i}.attn.proj", f"{_BLOCK}.attn.out_proj"),
    Rule("blocks.{i}.ls1.gamma", f"{_BLOCK}.ls_1.gamma"),
    *module("blocks.{i}.norm2", f"{_BLOCK}.ln_2"),
    *module("blocks.{i}.mlp.fc1", f"{_BLOCK}.mlp.c_fc"),
    *module("blocks.{i}.mlp.fc2", f"{_BLOCK}.mlp.c_proj"),
    Rule("blocks.{i}.ls2.gamma", f"{_BLOCK}.ls_2.gamma"),
    *module("norm", "ln_post"),
    Rule("attn_pool.latent", "attn_pool.probe"),
    *(
        Rule((f"attn_pool.q.{leaf}", f"attn_pool.kv.{leaf}"), f"attn_pool.attn.in_proj_{leaf}", Divided((1, 2)))
        for leaf in ("weight", "bias")
    ),
    *module("attn_pool.proj", "attn_pool.attn.out_proj"),
    *module("attn_pool.norm", "attn_pool.layernorm"),
    *module("attn_pool.mlp.fc1", "attn_pool.mlp.c_fc"),
    *module("attn_pool.mlp.fc2", "attn_pool.mlp.c_proj"),
    Rule(("head.weight", "head.bias"), "proj", WithoutBias("head", transposed=True, remedy="--head drop")),
)
_HEADS = 8
"""Of the pooling."""
_WIDTHS = {192: 3, 384: 6, 768: 12, 1024: 16, 1536: 16}
"""Width of a published model → its heads."""


def _rotary(grid: tuple[int, int], class_token: bool) -> AxialRotary:
    """Columns first; positions count from 1 behind a class token, on the grid of the table."""
    return AxialRotary(order="wh", offset=float(class_token), reference_grid=grid)


def shape_facts(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, object]:
    """The heads, the angles, and how the model pools."""
    token, (rows, width) = "class_embedding" in shapes, shapes["positional_embedding"]
    side = isqrt(rows - token)
    facts: dict[str, object] = {
        **({"num_heads": _WIDTHS[width]} if width in _WIDTHS else {}),
        "pos_embed": "prefix" if token else "patch",
        "rotary": _rotary((side, side), token),
    }
    return facts | ({"map_heads": _HEADS, "pool_prefix": True} if "attn_pool.probe" in shapes else {})


def cannot_hold(config: ViTConfig) -> list[str]:
    """What the authors' models have, and no more."""
    pooled = config.pool == "map"
    width = config.embed_dim
    complaints = unsupported_fields(
        config,
        norm_eps=(1e-5,),
        pre_norm=(True,),
        patch_bias=(False,),
        class_token=(True, False),
        pos_embed=("prefix" if config.class_token else "patch",),
        layer_scale=(config.layer_scale,) if pooled is (config.layer_scale is None) else (),
        final_norm=("tokens",) if pooled else ("tokens", "none"),
        pool=("map", "avg", "token"),
        pool_prefix=(pooled,),
        map_heads=(_HEADS,) if pooled else (None,),
        map_hidden_dim=(config.map_hidden_dim,),
        rotary=(_rotary(config.grid_size, config.class_token),),
    )
    heads = [] if config.num_heads == _WIDTHS.get(width, config.num_heads) else [f"num_heads={config.num_heads}"]
    return complaints + heads + not_square(config)


FORMAT = Format(
    name="perception",
    summary="facebookresearch/perception_models' names, image tower, in a PyTorch file",
    names=Rules(_RULES),
    signature=(
        "conv1.weight",
        "transformer.resblocks.0.attn.in_proj_weight",
        ("attn_pool.probe", "transformer.resblocks.0.ls_1.gamma"),
    ),
    before=("openai-clip",),
    set_aside={"*rope.*": "angles of rotary positions, which follow from the config"},
    conventions={"norm_eps": 1e-5, "activation": "gelu", "norm": "layernorm"},
    shape_facts=shape_facts,
    preprocessing=Preprocessing(mean=HALF, std=HALF, crop_fraction=1.0, resize="squash"),
    reader_defaults={"activation": "gelu"},
    drops=("pos_embed_resize",),
    writer=torch_file.write,
    cannot_hold=cannot_hold,
    second_reading=SecondReading(
        names=PartNames(
            patches=("conv1",), tokens=(("class_embedding",),), positions=("positional_embedding",),
            norm_pre=("ln_pre",), block=("transformer.resblocks.{i}",), norm1=("ln_1",), qkv=("attn.in_proj",),
            out=("attn.out_proj",), scale1=("ls_1.gamma",), norm2=("ln_2",), first=("mlp.c_fc",),
            second=("mlp.c_proj",), scale2=("ls_2.gamma",), norm=("ln_post",), pool_latent=("attn_pool.probe",),
            pool_qkv=("attn_pool.attn.in_proj",), pool_out=("attn_pool.attn.out_proj",),
            pool_norm=("attn_pool.layernorm",), pool_first=("attn_pool.mlp.c_fc",),
            pool_second=("attn_pool.mlp.c_proj",), projection=("proj",),
        ),
        plain=False,
    ),
)  # fmt: skip
