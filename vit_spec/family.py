"""What a family of models is: its config and the pure functions of it that the other packages call."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from itertools import chain
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, Self, TypeVar

from vit_spec.errors import VitportError
from vit_spec.parameter import BlockSizes, Parameter, Segment

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
    def patch_size(self) -> int:
        """Side of a patch in pixels."""
        ...

    @property
    def in_channels(self) -> int: ...

    @property
    def num_classes(self) -> int: ...

    @property
    def drop_rate(self) -> float:
        """Dropout of embeddings, projections and MLPs."""
        ...

    @property
    def attn_drop_rate(self) -> float:
        """Dropout of attention weights."""
        ...

    @property
    def drop_path_rate(self) -> float:
        """The largest rate of stochastic depth."""
        ...

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
    block_sizes: Callable[[C], Sequence[BlockSizes]]
    """What a block of each segment works on."""
    forward_flops: Callable[[C], int]
    """See :func:`forward_flops`."""
    longest_sum: Callable[[C], int]
    """Number of products in the longest inner product of a forward pass, which bounds its rounding error."""
    size_fields: tuple[str, ...]
    """Attributes of a config that tensors show and fine-tuning keeps: other values mean another named model. Not the
    sizes of images, channels, the head and what it reads."""
    aliases: Mapping[str, str]
    """Names that users of other software give fields → the fields."""
    models: Callable[[], Sequence[Model]]
    """Named models. A function, for hundreds of configs take a while: they are made when a name is asked for."""
    unsupported: Callable[[], Mapping[str, str]]
    """Names of models that are not implemented, with the reason."""
    remarks: Callable[[C], tuple[str, ...]] = lambda config: ()
    """What a user may not expect of a model of this config, in sentences for notes."""


FAMILIES: dict[str, Family[Any]] = {}
"""Name → family; filled by :mod:`vit_spec.registry`."""
_DEFAULT = "vit"
"""Records written before there were families name none."""


def family_of(config: Config) -> Family[Any]:
    """The family that a config belongs to."""
    return FAMILIES[config.family]


def family_module(package: str, config: Config | type[Config]) -> ModuleType | None:
    """The module of a package that is named after the config's family, which knows what this family alone means.

    Returns:
        ``None`` where the package has none.
    """
    name = f"{package}.{config.family}"
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:  # a library that the module needs
            raise
        return None


def needed_module(package: str, config: Config | type[Config], what: str) -> ModuleType:
    """The same, where nothing can be done without it.

    Args:
        what: what the package does, for the message: "are explained".

    Raises:
        VitportError: where the package has none.
    """
    found = family_module(package, config)
    if found is None:
        raise VitportError(f"Models of the family {config.family} {what}.")
    return found


def field_values(config: Config) -> dict[str, Any]:
    """The fields of a config, as they are: those that own fields of their own are not taken apart."""
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}


def config_fields(config: type[Config] | Config, *options: Mapping[str, Any]) -> dict[str, Any]:
    """The options by the names of the config's fields, of which the family's users may know some by other names.

    Raises:
        VitportError: for an unknown name, with the nearest known ones; for a field that is given under two names.
    """
    kind, aliases = config if isinstance(config, type) else type(config), FAMILIES[config.family].aliases
    fields = [field.name for field in dataclasses.fields(kind)]
    found: dict[str, Any] = {}
    for option, value in chain.from_iterable(group.items() for group in options):
        name = aliases.get(option, option)
        if name not in fields:
            near = difflib.get_close_matches(option, [*fields, *aliases], n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"the fields are {', '.join(fields)}."
            raise VitportError(f"{option}={value!r} is not a field of {kind.__name__}: {hint}")
        if name in found:
            alias = next(alias for alias, field in aliases.items() if field == name)
            raise VitportError(f"{name} is given twice, once as timm's {alias}: give one of them.")
        found[name] = value
    return found


@lru_cache(maxsize=256)
def parameters(config: Config) -> tuple[Parameter, ...]:
    """Every parameter of the model, in the order of its PyTorch ``state_dict``."""
    return tuple(family_of(config).parameters(config))


@lru_cache(maxsize=256)
def segments(config: Config) -> tuple[Segment, ...]:
    """The model's blocks, in the order of the forward pass."""
    return tuple(family_of(config).segments(config))


@lru_cache(maxsize=256)
def block_sizes(config: Config) -> tuple[BlockSizes, ...]:
    """What a block of each of the :func:`segments` works on."""
    return tuple(family_of(config).block_sizes(config))


def remarks(config: Config) -> tuple[str, ...]:
    """What a user may not expect of a model of this config, in sentences for notes."""
    return tuple(family_of(config).remarks(config))


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
