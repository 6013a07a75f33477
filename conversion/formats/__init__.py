"""The formats, in the order in which they are tried on a file: one whose signature another's contains comes first."""

from conversion.format import Format
from conversion.formats import (
    flax,
    huggingface_deit,
    huggingface_deit_one_head,
    huggingface_dinov2,
    huggingface_vit,
    timm,
)

FORMATS: dict[str, Format] = {
    module.FORMAT.name: module.FORMAT
    for module in (timm, flax, huggingface_dinov2, huggingface_deit, huggingface_deit_one_head, huggingface_vit)
}
