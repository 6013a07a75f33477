"""Two models compared, activation by activation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

import vit_parity
from vit_parity import porting
from vit_parity.porting.kept_steps import of_own_model
from vit_spec import VitportError
from vit_spec.arguments import changed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from conversion import Reading
    from vit_parity import Findings
    from vit_parity.porting import Masks, Pair, Porting


@overload
def compare(
    a: str | Path,
    b: str | Path | None = None,
    *,
    image: str | Path | None = None,
    seed: int = 0,
    image_size: int | tuple[int, int] | None = None,
    dtype: Literal["float64", "float32", "bfloat16", "float16"] = "float32",
    explain: bool = False,
    local_errors: bool = False,
    gradients: bool = False,
    memory: float = 1.0,
    **reading: Unpack[Reading],
) -> Findings: ...
@overload
def compare(
    a: Any,
    b: Any,
    inputs: Any = None,
    *,
    inputs_b: Any = None,
    pairs: str | Path | Iterable[Pair | str] | None = None,
    gradients: bool = False,
    loss: Callable[[Any], Any] | None = None,
    loss_b: Callable[[Any], Any] | None = None,
    masks: Masks | bool = False,
) -> Porting: ...
def compare(
    a: Any,
    b: Any = None,
    inputs: Any = None,
    *,
    image: str | Path | None = None,
    seed: int = 0,
    image_size: int | tuple[int, int] | None = None,
    dtype: Literal["float64", "float32", "bfloat16", "float16"] = "float32",
    explain: bool = False,
    local_errors: bool = False,
    gradients: bool = False,
    memory: float = 1.0,
    inputs_b: Any = None,
    pairs: str | Path | Iterable[Pair | str] | None = None,
    loss: Callable[[Any], Any] | None = None,
    loss_b: Callable[[Any], Any] | None = None,
    masks: Masks | bool = False,
    **reading: Unpack[Reading],
) -> Findings | Porting:
    """Measure how far ``b`` is from ``a``, layer by layer, and which of them is further from the truth.

    >>> found = vitport.compare("torch:deit.pth", "jax:deit.safetensors")
    >>> print(found.comparison.first_divergence)  # rounding explains every difference
    None

    The truth is ``a``'s weights in float64. docs/comparing.md says what the numbers mean.

    Two models of your own are given as they are (docs/tutorials/porting.md); only ``inputs``, ``inputs_b``, ``pairs``,
    ``gradients``, ``loss``, ``loss_b`` and ``masks`` concern them, as of :func:`vit_parity.porting.compare`:

    >>> print(vitport.compare(torch_model, flax_model, inputs=x))

    Args:
        a: the reference: weights, run by ``torch:PATH`` (the default), ``jax:PATH``, ``transformers:FOLDER``,
            ``timm:FILE`` or ``onnx:FILE``; ``timm:NAME``, run with the other side's weights; or a saved capture.
        b: what is measured; ``None`` for ``a``'s weights in JAX.
        inputs: of two models of your own: an array, a tuple of arguments, or a dict of keyword arguments.
        image: file of the image to run on; ``None`` for standard normal numbers. A capture brings its own.
        seed: of those numbers.
        image_size: pixels, a side or (height, width), to run at instead of the weights' own.
        dtype: of runs by ``torch:`` and ``jax:``.
        explain: name the causes of what rounding does not explain.
        local_errors: also measure each block's own error, on the truth's input.
        gradients: also compare gradients, from the output to the inputs: those of ``torch:`` and ``jax:`` runs, or of
            your own models.
        memory: gigabytes that activations may take at once, beside weights and libraries; what does not fit lies in a
            temporary file.
        reading: what the weights leave open, of both sides, as of :func:`load`; a side that holds one set of weights
            is read without ``weights_key``.
        inputs_b: the inputs of your own ``b``, if they differ.
        pairs: which stages of your own models belong together; drafted by default.
        loss: of the gradients of your own models, from ``a``'s output to a number; by default a random linear function.
        loss_b: the same of ``b``, in its framework; ``loss`` by default.
        masks: of your own models in training mode: both use the random masks that ``a`` draws, or recorded ones.

    Returns:
        ``comparison`` with a row for each activation and the first divergence, ``explanations``, ``local_errors`` and
        ``gradients``; the last three are ``None`` where they were not asked for.

    Raises:
        VitportError: if a side cannot be read or run, or there is nothing to compare.
    """
    of_weights = {
        "image": image, "seed": seed, "image_size": image_size, "dtype": dtype, "explain": explain,
        "local_errors": local_errors, "memory": memory, **reading,
    }  # fmt: skip
    of_own = {"inputs_b": inputs_b, "pairs": pairs, "loss": loss, "loss_b": loss_b, "masks": masks}
    files = [Path(it) for it in (a, b) if isinstance(it, (str, Path))]
    if inputs is None and len(files) == 2 and all(map(of_own_model, files)):
        if stray := changed(compare, of_weights):
            raise VitportError(
                f"{', '.join(stray)}: for weights alone, not for captures of your own models; leave out."
            )
        return porting.compare(a, b, gradients=gradients, **of_own)
    if inputs is None and isinstance(a, (str, Path)) and isinstance(b, (str, Path, type(None))):
        if stray := changed(compare, of_own):
            raise VitportError(f"{', '.join(stray)}: for two models of your own alone; leave out, or give inputs.")
        return vit_parity.compare(a, b, images=of_weights.pop("image"), gradients=gradients, **of_weights)
    if b is None:
        raise VitportError("compare needs a second model: compare(a, b, inputs=x).")
    if stray := changed(compare, of_weights):
        raise VitportError(f"{', '.join(stray)}: for weights alone, not for models of your own; leave out.")
    return porting.compare(a, b, inputs, gradients=gradients, **of_own)
