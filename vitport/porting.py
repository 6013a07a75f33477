"""Your own models, of any framework: captured, and compared stage by stage."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from vit_parity import Capture
    from vit_parity.porting import Pair, Porting, Suggestion

T = TypeVar("T")


def capture(model: Any, inputs: Any, *, title: str | None = None, to: str | Path | None = None) -> Capture:
    """Run a model of any framework once, and keep what each of its modules returns.

    >>> vitport.capture(model, x).activations["encoder.layers.0.norm1"].shape
    (1, 197, 192)

    Args:
        model: as of :func:`vit_parity.porting.capture`.
        inputs: an array, a tuple of positional arguments, or a dict of keyword arguments.
        title: name of the run in reports.
        to: also write a file, which compares as any other on any machine.
    """
    from vit_parity import porting

    return porting.capture(model, inputs, title=title, to=to)


def capturing(model: Any) -> AbstractContextManager[list[Capture]]:
    """Keep what a ``torch.nn.Module`` computes inside code of your own, call by call.

    >>> with vitport.capturing(model) as steps:
    ...     train_step(model, batch)

    Args:
        model: the module.
    """
    from vit_parity import porting

    return porting.capturing(model)


def tag(name: str, x: T) -> T:
    """Give an array in a JAX function a name; it costs nothing when nobody listens.

    >>> x = x + vitport.tag("attn", attention(x))

    Args:
        name: of the array.
        x: the array; it is returned as it is.
    """
    from vit_parity.porting.tags import tag

    return tag(name, x)


def suggest_pairs(a: Any, b: Any, inputs: Any = None, *, inputs_b: Any = None) -> Suggestion:
    """Draft which stages of two models belong together; ``str()`` of it is a file of pairs.

    Args:
        a: as of :func:`compare`.
        b: the same.
        inputs: the same.
        inputs_b: the same.
    """
    from vit_parity import porting

    return porting.suggest_pairs(a, b, inputs, inputs_b=inputs_b)


def assert_parity(
    a: Any,
    b: Any,
    inputs: Any = None,
    pairs: str | Path | Iterable[Pair | str] | None = None,
    *,
    inputs_b: Any = None,
    report: str | Path | None = None,
) -> Porting:
    """Fail unless rounding explains every difference of two models, with the layer, its cause and a report.

    >>> vitport.assert_parity(torch_model, flax_model, inputs=x)

    Args:
        a: the reference, as of :func:`compare`.
        b: the port.
        inputs: of both.
        pairs: which stages belong together; drafted by default.
        inputs_b: B's inputs, if they differ.
        report: where the HTML report of a failure goes.
    """
    from vit_parity import porting

    return porting.assert_parity(a, b, inputs, pairs, inputs_b=inputs_b, report=report)


def assert_golden(model: Any, inputs: Any, path: str | Path) -> None:
    """Fail unless a model still computes what its golden file holds; the first call writes the file.

    Args:
        model: as of :func:`capture`.
        inputs: the same.
        path: of the file, ``.npz`` or ``.safetensors``.
    """
    from vit_parity import porting

    porting.assert_golden(model, inputs, path)
