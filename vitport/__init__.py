"""Vision Transformers in PyTorch and JAX, and their weights in every common format.

    >>> import vitport
    >>> vitport.convert("deit.pth", "deit.safetensors", to="timm", verify=True).certificate.passed
    True
    >>> model = vitport.create_model(weights="deit.safetensors", framework="jax", num_classes=10)
    >>> print(vitport.compare("torch:deit.pth", "jax:deit.safetensors").comparison.first_divergence)
    None

Each name is described where it is defined; the packages behind them (``vit_torch``, ``vit_jax``, ``conversion``,
``vit_parity``, ``vit_spec``) have more. Importing this package imports none of PyTorch, JAX and NumPy: what a function
needs is imported when it is called.
"""

from typing import TYPE_CHECKING

from vit_spec import Preprocessing, ViTConfig, VitportError
from vitport.comparing import compare
from vitport.models import create_model, list_models
from vitport.porting import assert_golden, assert_parity, capture, capturing, suggest_pairs, tag
from vitport.weights import convert, load

if TYPE_CHECKING:
    __version__: str

__all__ = [
    "Preprocessing",
    "ViTConfig",
    "VitportError",
    "__version__",
    "assert_golden",
    "assert_parity",
    "capture",
    "capturing",
    "compare",
    "convert",
    "create_model",
    "list_models",
    "load",
    "suggest_pairs",
    "tag",
]


def __getattr__(name: str) -> str:
    """``__version__``, which takes longer to look up than the rest of the package to import."""
    if name != "__version__":
        raise AttributeError(f"module 'vitport' has no attribute {name!r}")
    from importlib.metadata import version

    return version("vitport")
