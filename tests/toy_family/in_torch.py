"""``vit_torch/toy``."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from tests.toy_family.spec import ToyConfig
from vit_torch import Attention, DropPath, Mlp, PatchEmbed, VisionModel
from vit_torch.layers.initialization import make_linear


class Block(nn.Module):
    def __init__(self, c: ToyConfig, D: int, heads: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(D, eps=1e-6)
        self.attn = Attention(D, heads, qkv_bias=True, attn_drop=c.attn_drop_rate, proj_drop=c.drop_rate)
        self.norm2 = nn.LayerNorm(D, eps=1e-6)
        self.mlp = Mlp(D, 2 * D, drop=c.drop_rate)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class Toy(VisionModel[ToyConfig]):
    def __init__(self, config: ToyConfig) -> None:
        super().__init__(config)
        c, rates = config, iter(config.drop_path_rates)
        self.patch_embed = PatchEmbed(c.image_size, c.patch_size, c.in_channels, c.width)
        self.levels = nn.ModuleList()
        for at, (depth, D, heads) in enumerate(zip(c.depths, c.widths, c.heads, strict=True)):
            stage = nn.Module()
            if at:
                stage.merge = make_linear(D, D, bias=False)
            stage.blocks = nn.ModuleList(Block(c, D, heads, next(rates)) for _ in range(depth))
            self.levels.append(stage)
        self.norm = nn.LayerNorm(c.widths[-1], eps=1e-6)
        self.reset_classifier(c.num_classes)

    @property
    def num_features(self) -> int:
        return self.config.widths[-1]

    def reset_classifier(self, num_classes: int, pool: Any = None) -> None:
        self.config = self.config.replace(num_classes=num_classes)
        self.head = make_linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def embed(self, images: Tensor) -> Tensor:
        return self.patch_embed(images)

    def segments(self) -> Any:
        return [stage.blocks for stage in self.levels]

    def enter(self, segment: int, tokens: Tensor) -> Tensor:
        """Pairs of neighbours, side by side."""
        if not segment:
            return tokens
        B, N, D = tokens.shape
        merge: Any = self.levels[segment].merge
        return merge(tokens.reshape(B, N // 2, 2 * D))

    def forward_head(self, tokens: Tensor) -> Tensor:
        return self.head(tokens.mean(dim=1))


MODEL = Toy
