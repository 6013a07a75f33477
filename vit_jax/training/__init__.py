"""Training in JAX: recipes, one compiled step, meshes. Requires the extra ``train`` (optax).

The public names are those of ``__init__.pyi``; each is imported at its first use.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
