"""Named models: tables of timm's names, and their configs."""

from vit_spec.models.contrastive import CONTRASTIVE
from vit_spec.models.model import Model
from vit_spec.models.papers import PAPERS
from vit_spec.models.self_supervised import SELF_SUPERVISED
from vit_spec.models.supervised import SUPERVISED
from vit_spec.models.unsupported import UNSUPPORTED

MODELS: tuple[Model, ...] = (*PAPERS, *SUPERVISED, *CONTRASTIVE, *SELF_SUPERVISED)

__all__ = ["MODELS", "PAPERS", "UNSUPPORTED", "Model"]
