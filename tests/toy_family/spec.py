"""``vit_spec/toy``: the config, the parameters, the cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from vit_spec import BlockSizes, Family, Kind, Parameter, Segment, Split, Stage, VitportError


@dataclass(frozen=True, kw_only=True)
class ToyConfig:
    """Stripes of the image are tokens; stage 1 has half the tokens and twice the width of stage 0."""

    family: ClassVar[str] = "toy"

    image_size: tuple[int, int] = (8, 12)
    in_channels: int = 3
    num_classes: int = 5
    patch_size: int = 4
    width: int = 32
    depths: tuple[int, ...] = (2, 3)
    heads: tuple[int, ...] = (2, 4)
    drop_rate: float = 0.0
    attn_drop_rate: float = 0.0
    drop_path_rate: float = 0.0

    @property
    def widths(self) -> tuple[int, ...]:
        return tuple(self.width * 2**stage for stage in range(len(self.depths)))

    def tokens(self, stage: int) -> int:
        return self.image_size[0] * self.image_size[1] // self.patch_size**2 // 2**stage

    @property
    def drop_path_rates(self) -> tuple[float, ...]:
        depth = sum(self.depths)
        return tuple(self.drop_path_rate * block / max(depth - 1, 1) for block in range(depth))

    def replace(self, **changes: Any) -> ToyConfig:
        try:
            return dataclasses.replace(self, **changes)
        except TypeError as error:
            raise VitportError(f"{error}: choose another field.") from error

    def to_dict(self) -> dict[str, Any]:
        lists = {name: list(value) for name, value in vars(self).items() if isinstance(value, tuple)}
        return {"family": self.family} | dataclasses.asdict(self) | lists

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ToyConfig:
        return cls().replace(**{n: tuple(v) if isinstance(v, list) else v for n, v in values.items()})


def segments(c: ToyConfig) -> tuple[Segment, ...]:
    return tuple(Segment(f"levels.{stage}.blocks", depth) for stage, depth in enumerate(c.depths))


def parameters(c: ToyConfig) -> Iterator[Parameter]:
    kernel = (c.width, c.in_channels, c.patch_size, c.patch_size)
    yield Parameter(name="patch_embed.proj.weight", shape=kernel, kind=Kind.CONV, stage=Stage.EMBED, layer=0)
    yield Parameter(name="patch_embed.proj.bias", shape=(c.width,), kind=Kind.BIAS, stage=Stage.EMBED, layer=0)
    layer = 0
    for stage, (segment, D) in enumerate(zip(segments(c), c.widths, strict=True)):
        if stage:
            yield Parameter(name=f"levels.{stage}.merge.weight", shape=(D, D), kind=Kind.LINEAR, stage=Stage.BLOCK,
                            layer=layer + 1)  # fmt: skip
        for index in range(segment.count):
            layer += 1
            at = segment.block(index)
            for name, shape, kind, split in _block(D):
                yield Parameter(name=f"{at}.{name}", shape=shape, kind=kind, stage=Stage.BLOCK, layer=layer,
                                segment=segment, index=index, split=split)  # fmt: skip
    D, layer = c.widths[-1], layer + 1
    yield Parameter(name="norm.weight", shape=(D,), kind=Kind.NORM, stage=Stage.POOL, layer=layer)
    yield Parameter(name="norm.bias", shape=(D,), kind=Kind.BIAS, stage=Stage.POOL, layer=layer)
    if c.num_classes:
        shape = (c.num_classes, D)
        yield Parameter(name="head.weight", shape=shape, kind=Kind.LINEAR, stage=Stage.CLASSIFIER, layer=layer)
        yield Parameter(name="head.bias", shape=shape[:1], kind=Kind.BIAS, stage=Stage.CLASSIFIER, layer=layer)


def _block(D: int) -> Iterator[tuple[str, tuple[int, ...], Kind, Split | None]]:
    layers: tuple[tuple[str, int, Split], ...] = (("attn.qkv", 3, "packed"), ("attn.proj", 1, "rows"))
    for norm, linears in (("norm1", layers), ("norm2", (("mlp.fc1", 2, "columns"), ("mlp.fc2", 1, "rows")))):
        yield f"{norm}.weight", (D,), Kind.NORM, None
        yield f"{norm}.bias", (D,), Kind.BIAS, None
        for name, wider, split in linears:
            inputs = 2 * D if name == "mlp.fc2" else D
            yield f"{name}.weight", (wider * D, inputs), Kind.LINEAR, split
            yield f"{name}.bias", (wider * D,), Kind.BIAS, split


def block_sizes(c: ToyConfig) -> Iterator[BlockSizes]:
    for stage, (D, heads) in enumerate(zip(c.widths, c.heads, strict=True)):
        tokens = c.tokens(stage)
        yield BlockSizes(
            tokens=tokens, width=D, heads=heads, keys=tokens, hidden=2 * D, saved=4 * D, saved_by_part=4 * D + 4 * D
        )


def forward_flops(c: ToyConfig) -> int:
    found = c.tokens(0) * c.width * c.in_channels * c.patch_size**2 + c.widths[-1] * c.num_classes
    for stage, (depth, D) in enumerate(zip(c.depths, c.widths, strict=True)):
        tokens = c.tokens(stage)
        found += depth * (tokens * 8 * D * D + 2 * tokens**2 * D) + (tokens * D * D if stage else 0)
    return 2 * found


TOY = Family(
    name="toy",
    config=ToyConfig,
    parameters=parameters,
    segments=segments,
    block_sizes=block_sizes,
    forward_flops=forward_flops,
    longest_sum=lambda c: max(2 * c.widths[-1], c.in_channels * c.patch_size**2),
    size_fields=("depths", "width", "patch_size"),
    aliases={"img_size": "image_size"},
    models=tuple,
    unsupported=dict,
)
