"""Vision Transformers in PyTorch and JAX, and their weights in every common format.

    >>> import vitport
    >>> vitport.convert("deit.pth", "deit.safetensors", to="timm", verify=True).certificate.passed
    True
    >>> model = vitport.create_model(weights="deit.safetensors", framework="jax", num_classes=10)
    >>> print(vitport.compare("torch:deit.pth", "jax:deit.safetensors").comparison.first_divergence)
    None

The public names are those of ``__init__.pyi``, each described where it is defined; the packages behind them
(``vit_torch``, ``vit_jax``, ``conversion``, ``vit_parity``, ``vit_spec``) have more. Importing this package imports
none of PyTorch, JAX and NumPy: a name brings what it needs at its first use.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
