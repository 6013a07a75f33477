"""The Vision Transformer in Flax NNX; ``vit_torch`` is the same model, file by file, in PyTorch.

The public names are those of ``__init__.pyi``, which type checkers read too. Each is imported at its first use, so that
``import vit_jax`` itself loads neither jax nor flax.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
