"""Named models: tables of timm's names, and their configs."""

from vit_spec.model import Model
from vit_spec.vit.models.contrastive import CONTRASTIVE
from vit_spec.vit.models.papers import PAPERS
from vit_spec.vit.models.relative import RELATIVE
from vit_spec.vit.models.rotary import ROTARY
from vit_spec.vit.models.self_supervised import SELF_SUPERVISED
from vit_spec.vit.models.supervised import SUPERVISED
from vit_spec.vit.models.unsupported import UNSUPPORTED

MODELS: tuple[Model, ...] = (*PAPERS, *SUPERVISED, *CONTRASTIVE, *SELF_SUPERVISED, *ROTARY, *RELATIVE)

__all__ = ["MODELS", "PAPERS", "UNSUPPORTED"]
