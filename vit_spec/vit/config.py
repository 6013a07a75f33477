"""What a Vision Transformer is: one frozen dataclass that both frameworks build their modules from."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from vit_spec.activation import Activation
from vit_spec.errors import VitportError
from vit_spec.reading import fields_in_json, height_and_width
from vit_spec.validation import (
    MOST_BLOCKS,
    MOST_CLASSES,
    check_at_least,
    check_at_most,
    check_choices,
    check_eps,
    check_rates,
    check_types,
    field_types,
    replaced,
)
from vit_spec.vit.checks import check_divisions, check_options, warn_of_unused
from vit_spec.vit.choices import BlockKind, FinalNorm, MlpKind, NormKind, Pooling, PositionEmbedding, PositionResize
from vit_spec.vit.rotary import Rotary, as_rotary, check_rotary


@dataclass(frozen=True, kw_only=True)
class ViTConfig:
    """Everything that changes what a Vision Transformer computes, and nothing else.

    Sizes are in pixels, widths in channels, rates in [0, 1). The defaults are ViT-B/16 at 224 pixels
    (Dosovitskiy et al. 2021, table 1) with the LayerNorm epsilon of its reference code.

    Raises:
        VitportError: if values contradict each other; the message names them.
    """

    family: ClassVar[str] = "vit"

    image_size: tuple[int, int] = (224, 224)
    """Height and width of the input image; an int means a square. What whole patches leave over at the bottom and at
    the right belongs to no patch, as in timm, transformers and big_vision: see :attr:`margin`."""
    patch_size: int = 16
    in_channels: int = 3
    num_classes: int = 1000
    """Width of the head; 0 means no head: the model returns the pooled features."""
    embed_dim: int = 768
    depth: int = 12
    num_heads: int = 12

    mlp_ratio: float = 4.0
    mlp_hidden_dim: int | None = None
    """Hidden width of the MLP (the input width of ``fc2``) if it is not a multiple of ``embed_dim``; overrides
    ``mlp_ratio``."""
    mlp: MlpKind = "plain"
    activation: Activation = "gelu"
    mlp_norm: bool = False
    """A norm between activation and ``fc2`` (NormFormer, Shleifer et al. 2021)."""

    qkv_bias: bool = True
    qv_bias: bool = False
    """Biases of queries and values alone, in place of ``qkv_bias`` (BEiT, Bao et al. 2022; EVA; DINOv3)."""
    qk_scale: float | None = None
    """Factor on the attention logits; ``None`` means ``qk_dim ** -0.5``."""
    qk_norm: bool = False
    """Norms over the head width of queries and keys (Dehghani et al. 2023, section 2)."""
    differential: bool = False
    """Each head subtracts from one softmax a learned share of another: each has half the channels of queries and keys
    (Ye et al. 2024, "Differential Transformer", section 2.1)."""
    attn_norm: bool = False
    """A norm between the attention's heads and its output projection (NormFormer)."""
    proj_bias: bool = True
    """Biases of the attention's output projection, and of the MLP unless ``mlp_bias`` says otherwise."""
    mlp_bias: bool | None = None
    """Biases of the MLP; ``None`` for as ``proj_bias`` says (DeepSeek's encoder has some in attention alone)."""

    norm: NormKind = "layernorm"
    norm_bias: bool = True
    norm_eps: float = 1e-6
    block: BlockKind = "sequential"
    branches: int = 2
    """Attentions, and MLPs, side by side in each block; for ``block="branched"``."""
    pre_norm: bool = False
    """A norm between the embeddings and the first block (``norm_pre``, CLIP)."""
    final_norm: FinalNorm = "tokens"
    layer_scale: float | None = None
    """Initial value of the per-channel scale after attention and MLP (Touvron et al. 2021, CaiT); ``None``
    means no such scale."""
    scale_attention_only: bool = False
    """Whether that scale comes after attention alone (Sapiens2)."""

    pixel_norm: bool = False
    """A norm over the pixels of each patch before their projection (vit-pytorch; Kumar et al. 2023, "Dual PatchNorm").
    Its factors are in the order row, column, channel."""
    patch_bias: bool = True
    patch_norm: bool = False
    """A norm over each token behind the projection."""
    class_token: bool = True
    distilled: bool = False
    """A distillation token with a head of its own (DeiT, Touvron et al. 2021, section 4)."""
    register_tokens: int = 0
    """Extra learned tokens between class token and patches (Darcet et al. 2024)."""
    pos_embed: PositionEmbedding = "prefix"
    pos_embed_resize: PositionResize = "torch-bicubic-antialias"
    rotary: Rotary | None = None
    """Turns queries and keys of patches by their positions, with or without a position table; ``None`` for no turns.
    A model without a table has no size of its own: it reads images of any size."""

    relative_bias: bool = False
    """A learned bias of the attention logits by relative position, of every head in every block, and three more for
    the class token, if there is one (BEiT, Bao et al. 2022)."""
    relative_hidden_dim: int | None = None
    """Hidden width of a small network in every block that computes such biases from log-spaced offsets, in place of a
    table; ``None`` for no network (timm's ``vit_relpos``, after Liu et al. 2022, section 3.3). Prefix tokens have none,
    and images may have any size."""

    pool: Pooling = "token"
    pool_prefix: bool = False
    """Whether the pooling over patches (``avg``, ``map``, ``token_avg``) runs over all tokens instead."""
    map_heads: int | None = None
    """Heads of the pooling by attention (``map``); ``None`` for as many as in the blocks."""
    map_hidden_dim: int | None = None
    """Hidden width of its MLP; ``None`` for the blocks'."""
    representation_size: int | None = None
    """Width of a tanh layer before the head (``pre_logits``, ViT's pre-training head)."""

    drop_rate: float = 0.0
    """Dropout after the position table and after every projection of attention and MLP."""
    attn_drop_rate: float = 0.0
    """Dropout on the attention weights."""
    drop_path_rate: float = 0.0
    """Stochastic depth of the last block; it rises linearly from 0 at the first (Huang et al. 2016)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "image_size", height_and_width(self.image_size, "image_size"))
        object.__setattr__(self, "rotary", as_rotary(self.rotary))
        if self.mlp_bias == self.proj_bias:
            object.__setattr__(self, "mlp_bias", None)  # one way to say it
        check_types(self)
        check_choices(self)
        self._check_sizes()
        if self.block == "parallel" and (self.mlp != "plain" or self.mlp_norm or self.attn_norm):
            raise VitportError(
                f"block='parallel' has one plain MLP beside the attention, but mlp={self.mlp!r}, "
                f"mlp_norm={self.mlp_norm}, attn_norm={self.attn_norm}: choose mlp='plain' and neither norm."
            )
        check_options(self)
        if self.rotary is not None:
            check_rotary(self.rotary, self.head_dim)
        check_rates(self)
        warn_of_unused(self)

    def _check_sizes(self) -> None:
        size = self.image_size
        check_at_most({"image_size": max(size), "embed_dim": self.embed_dim})  # others are computed with it
        at_least_one = {
            name: getattr(self, name)
            for name in ("patch_size", "in_channels", "embed_dim", "depth", "branches", "num_heads", "hidden_dim")
        }
        at_least_one |= {"image_size": min(size)}
        for name in ("map_heads", "map_hidden_dim", "representation_size", "relative_hidden_dim"):
            if getattr(self, name) is not None:
                at_least_one[name] = getattr(self, name)
        check_at_least(1, at_least_one)
        check_at_least(0, {"num_classes": self.num_classes, "register_tokens": self.register_tokens})
        check_at_most(at_least_one | {"register_tokens": self.register_tokens})
        check_at_most({"num_classes": self.num_classes}, MOST_CLASSES)
        check_at_most({"depth": self.depth}, MOST_BLOCKS)
        check_eps("norm_eps", self.norm_eps)
        check_divisions(self)

    def options(self, layer: Literal["attention", "mlp"], norm: Any) -> dict[str, Any]:
        """The keyword arguments of a layer of the blocks, which are the same in both frameworks.

        Args:
            norm: what makes a norm, for those arguments that ask for one.
        """
        given = {argument: getattr(self, field) for argument, field in _OPTIONS[layer].items()}
        return {name: (norm if it else None) if name.endswith("norm") else it for name, it in given.items()}

    @property
    def grid_size(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.image_size[0] // self.patch_size, self.image_size[1] // self.patch_size

    @property
    def margin(self) -> tuple[int, int]:
        """Rows at the bottom and columns at the right that belong to no patch, in pixels."""
        return self.image_size[0] % self.patch_size, self.image_size[1] % self.patch_size

    @property
    def num_patches(self) -> int:
        return self.grid_size[0] * self.grid_size[1]

    @property
    def relative_grid(self) -> tuple[int, int] | None:
        """The grid whose relative positions have biases in a table."""
        return self.grid_size if self.relative_bias else None

    @property
    def num_positioned_prefix_tokens(self) -> int:
        """Rows of the position table that belong to no patch and are never resampled."""
        tokens = int(self.class_token) + int(self.distilled)
        return {"none": 0, "patch": 0, "prefix": tokens, "all": tokens + self.register_tokens}[self.pos_embed]

    @property
    def num_prefix_tokens(self) -> int:
        """Tokens before the patches: class, distillation, registers, in this order."""
        return int(self.class_token) + int(self.distilled) + self.register_tokens

    @property
    def num_tokens(self) -> int:
        return self.num_prefix_tokens + self.num_patches

    @property
    def head_dim(self) -> int:
        return self.embed_dim // self.num_heads

    @property
    def qk_dim(self) -> int:
        """Channels of queries and keys that one softmax reads."""
        return self.head_dim // 2 if self.differential else self.head_dim

    @property
    def attention_scale(self) -> float:
        return self.qk_dim**-0.5 if self.qk_scale is None else self.qk_scale

    @property
    def hidden_dim(self) -> int:
        """Input width of the MLP's ``fc2``."""
        return int(self.embed_dim * self.mlp_ratio) if self.mlp_hidden_dim is None else self.mlp_hidden_dim

    @property
    def pool_heads(self) -> int:
        """Heads of the pooling by attention."""
        return self.num_heads if self.map_heads is None else self.map_heads

    @property
    def pool_hidden_dim(self) -> int:
        """Hidden width of its MLP."""
        return self.hidden_dim if self.map_hidden_dim is None else self.map_hidden_dim

    @property
    def pooled_dim(self) -> int:
        """Width of the pooled vector."""
        return 2 * self.embed_dim if self.pool == "token_avg" else self.embed_dim

    @property
    def pre_logits_dim(self) -> int | None:
        """Width of the ``pre_logits`` layer, ``None`` where the model has none."""
        return None if self.distilled else self.representation_size

    @property
    def biased_mlp(self) -> bool:
        return self.proj_bias if self.mlp_bias is None else self.mlp_bias

    @property
    def drop_path_rates(self) -> tuple[float, ...]:
        """Stochastic depth of each block, rising linearly from 0 to ``drop_path_rate``."""
        steps = max(self.depth - 1, 1)
        return tuple(self.drop_path_rate * block / steps for block in range(self.depth))

    def replace(self, **changes: Any) -> ViTConfig:
        """A validated copy with the named fields changed."""
        return replaced(self, changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, every field written out."""
        rotary = None if self.rotary is None else self.rotary.to_dict()
        return dataclasses.asdict(self) | {"image_size": list(self.image_size), "rotary": rotary}

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ViTConfig:
        """The inverse of :meth:`to_dict`; fields left out take their defaults, unknown ones are refused."""
        return cls().replace(**values)

    @classmethod
    def from_json(cls, text: str) -> ViTConfig:
        return cls.from_dict(fields_in_json(text, "ViTConfig"))


_OPTIONS = {
    "attention": {
        "qkv_bias": "qkv_bias", "qv_bias": "qv_bias", "relative_grid": "relative_grid",
        "relative_class": "class_token", "qk_scale": "qk_scale",
        "proj_bias": "proj_bias", "qk_norm": "qk_norm", "attn_norm": "attn_norm", "attn_drop": "attn_drop_rate",
        "proj_drop": "drop_rate",
    },
    "mlp": {"act": "activation", "bias": "biased_mlp", "norm": "mlp_norm", "drop": "drop_rate"},
}  # fmt: skip
"""Arguments of layers → fields, or what follows from them."""
FIELDS = tuple(field_types(ViTConfig))
