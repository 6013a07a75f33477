"""lucidrains' vit-pytorch, ``SimpleViT`` (Beyer et al. 2022): no class token, fixed positions that no file holds."""

from collections.abc import Mapping

import numpy as np

from conversion.containers import torch_file
from conversion.format import Format
from conversion.formats.vit.vit_pytorch import BLOCK, LAYER, PATCHES, blocks, common_limits, facts, remarks
from conversion.second_reading.vit import SecondReading
from conversion.tensors.rules import Rule, Rules, module
from conversion.tensors.table import Tensor, TensorTable
from conversion.tensors.transforms import WithoutBias
from vit_spec import UnstatedError, ViTConfig, VitportError

BLOCKS = (
    *blocks("", "net.0", "net.1", "net.3"),
    Rule(
        ("blocks.{i}.attn.proj.weight", "blocks.{i}.attn.proj.bias"),
        f"{LAYER}.0.to_out.weight",
        WithoutBias("attention's output projection"),
    ),
)
_TEMPERATURE = 10000


def cannot_hold(config: ViTConfig) -> list[str]:
    """The mean of the patches, at fixed positions."""
    return width(config) + common_limits(
        config,
        pixel_norm=(True,),
        patch_norm=(True,),
        class_token=(False,),
        pool=("avg",),
        pos_embed=("patch", "prefix"),
    )


def width(config: ViTConfig) -> list[str]:
    """Sines and cosines of rows and of columns take a quarter of the width each."""
    return (
        [f"embed_dim={config.embed_dim} (positions need a multiple of 4, at least 8)"] if _odd(config.embed_dim) else []
    )


def positions(table: TensorTable, size: tuple[int, int] | None) -> Mapping[str, Tensor]:
    """The table of sines and cosines, (1, patches, D) in float32: of columns first, then of rows.

    Raises:
        UnstatedError: if nobody says the size of the images.
        VitportError: if the width is not a multiple of 4.
    """
    shape, dtype = table.spec("patch_embed.proj.weight")
    wide, patch = shape[0], shape[-1]
    if size is None:
        raise UnstatedError(
            "SimpleViT computes its positions from the size of the images, which the file does not say: state it "
            "(--image-size 64x32, facts={'image_size': …} or a ViTConfig).",
            ["image_size"],
        )
    if _odd(wide):
        raise VitportError(f"SimpleViT has positions for widths of 8, 12, 16 … only, but the file's is {wide}.")
    rows, columns = size[0] // patch, size[1] // patch

    def read() -> np.ndarray:
        exponents = np.arange(wide // 4, dtype=np.float32) / np.float32(wide // 4 - 1)
        frequencies = np.float32(1) / np.float32(_TEMPERATURE) ** exponents  # in float32, as the original computes them
        y, x = (grid.reshape(-1, 1).astype(np.float32) * frequencies for grid in np.mgrid[:rows, :columns])
        return np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y)], axis=1)[None].astype(dtype)

    return {"pos_embed": Tensor((1, rows * columns, wide), dtype, read)}


def _odd(width: int) -> bool:
    return width % 4 != 0 or width < 8


FORMAT = Format(
    name="vit-pytorch-simple",
    summary="lucidrains' vit-pytorch, the state_dict of its SimpleViT in a PyTorch file",
    before=("vit-pytorch-simple-plain",),
    names=Rules((
        *PATCHES,
        *BLOCKS,
        *module("norm", "transformer.norm"),
        *module("head", "linear_head"),
        *module("fc_norm", "linear_head.0"),
        *module("head", "linear_head.1"),
    )),
    signature=(
        "transformer.layers.0.0.to_out.weight", "transformer.layers.0.1.net.3.weight", "to_patch_embedding.3.weight",
    ),
    conventions={"activation": "gelu", "norm_eps": 1e-5, "norm": "layernorm", "pool": "avg", "pos_embed": "patch"},
    shape_facts=facts,
    computed=positions,
    remarks=remarks,
    writer=torch_file.write,
    cannot_hold=cannot_hold,
    second_reading=SecondReading(
        names=BLOCK, norm_eps=1e-5, activation="gelu", pool="avg", flat_patches="channels last", sincos="to the last",
    ),
)  # fmt: skip
