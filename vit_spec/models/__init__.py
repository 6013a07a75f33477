"""Named models beyond the papers' first: tables of timm's names, and their configs."""

from vit_spec.models.contrastive import CONTRASTIVE
from vit_spec.models.model import Model
from vit_spec.models.self_supervised import SELF_SUPERVISED
from vit_spec.models.supervised import SUPERVISED
from vit_spec.models.unsupported import UNSUPPORTED

FURTHER: dict[str, Model] = {model.name: model for model in (*SUPERVISED, *CONTRASTIVE, *SELF_SUPERVISED)}

__all__ = ["FURTHER", "UNSUPPORTED", "Model"]
