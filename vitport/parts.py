"""What of ``vit_spec`` the front door's functions take, give and raise."""

from vit_spec import Preprocessing, ViTConfig, VitportError

__all__ = ["Preprocessing", "ViTConfig", "VitportError"]
