"""What a family of models is: its config and the pure functions of it that the other packages call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, Self, TypeVar

from vit_spec.errors import VitportError
from vit_spec.parameter import Parameter, Segment

if TYPE_CHECKING:
    from vit_spec.model import Model


class Config(Protocol):
    """What the configs of all families have: frozen dataclasses, which are hashable."""

    __dataclass_fields__: ClassVar[dict[str, Any]]
    family: ClassVar[str]
    """Name of the family, a class attribute."""

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        ...

    @property
    def in_channels(self) -> int: ...

    @property
    def num_classes(self) -> int: ...

    @property
    def drop_path_rates(self) -> tuple[float, ...]:
        """Stochastic depth of each block, over all segments."""
        ...

    def replace(self, **changes: Any) -> Self:
        """A validated copy with the named fields changed."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values. All families but the first, ``vit``, add ``"family"``."""
        ...

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`, less ``"family"``."""
        ...


C = TypeVar("C", bound=Config)


@dataclass(frozen=True)
class Family(Generic[C]):
    """A family of models. :mod:`vit_spec.registry` lists all of them."""

    name: str
    config: type[C]
    parameters: Callable[[C], Iterable[Parameter]]
    """Every parameter, in the order of the PyTorch ``state_dict``."""
    segments: Callable[[C], Sequence[Segment]]
    """The blocks, in the order of the forward pass."""
    forward_flops: Callable[[C], int]
    """See :func:`forward_flops`."""
    longest_sum: Callable[[C], int]
    """Number of products in the longest inner product of a forward pass, which bounds its rounding error."""
    models: Sequence[Model]
    """Named models."""
    unsupported: Mapping[str, str]
    """Names of models that are not implemented, with the reason."""


FAMILIES: dict[str, Family[Any]] = {}
"""Name → family; filled by :mod:`vit_spec.registry`."""
_DEFAULT = "vit"
"""Records written before there were families name none."""


def family_of(config: Config) -> Family[Any]:
    """The family that a config belongs to."""
    return FAMILIES[config.family]


@lru_cache(maxsize=256)
def parameters(config: Config) -> tuple[Parameter, ...]:
    """Every parameter of the model, in the order of its PyTorch ``state_dict``."""
    return tuple(family_of(config).parameters(config))


@lru_cache(maxsize=256)
def segments(config: Config) -> tuple[Segment, ...]:
    """The model's blocks, in the order of the forward pass."""
    return tuple(family_of(config).segments(config))


def count_parameters(config: Config) -> int:
    """Number of trainable scalars."""
    return sum(parameter.size for parameter in parameters(config))


def count_blocks(config: Config) -> int:
    """Number of blocks, over all segments."""
    return sum(segment.count for segment in segments(config))


def forward_flops(config: Config) -> int:
    """Floating-point operations of the matrix products in the forward pass of one image.

    A multiply-add counts as two, as in ``torch.utils.flop_counter``; papers often report half of this under the name
    of GFLOPs. Norms, activations, softmax and biases are left out: together they are below 1 %.
    """
    return family_of(config).forward_flops(config)


def longest_sum(config: Config) -> int:
    """Number of products in the longest inner product of a forward pass."""
    return family_of(config).longest_sum(config)


def config_from_dict(values: Mapping[str, Any]) -> Config:
    """The config that :meth:`Config.to_dict` wrote. A record without ``"family"`` is a ``ViTConfig``'s.

    Raises:
        VitportError: for an unknown family, unknown fields, or values that contradict each other.
    """
    fields = dict(values)
    name = fields.pop("family", _DEFAULT)
    if name not in FAMILIES:
        raise VitportError(
            f"family={name!r} is unknown: this version of vitport has {', '.join(FAMILIES)}. A newer one may read it."
        )
    return FAMILIES[name].config.from_dict(fields)
