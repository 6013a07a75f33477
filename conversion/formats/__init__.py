"""The formats, in the order in which they are tried on a file: one whose signature another's contains comes first."""

from conversion.format import Format
from conversion.formats.vit import (
    big_vision,
    big_vision_scan,
    dinov2_chunked,
    flax,
    google,
    google_linen,
    huggingface_clip,
    huggingface_clip_classifier,
    huggingface_deit,
    huggingface_deit_one_head,
    huggingface_dinov2,
    huggingface_flax,
    huggingface_siglip,
    huggingface_siglip_classifier,
    huggingface_vit,
    mmpretrain,
    openai_clip,
    timm,
    torch_encoder,
    torchvision,
)

FAMILIES = {
    "huggingface": (
        "huggingface-dinov2",
        "huggingface-deit",
        "huggingface-deit-one-head",
        "huggingface-vit",
        "huggingface-clip",
        "huggingface-clip-classifier",
        "huggingface-siglip-classifier",
        "huggingface-siglip",
    ),
}
"""Names that stand for several formats: the first that fits the model, or the file, is taken."""

FORMATS: dict[str, Format] = {
    module.FORMAT.name: module.FORMAT
    for module in (
        timm,
        flax,
        google,
        google_linen,
        big_vision,
        big_vision_scan,
        huggingface_dinov2,
        huggingface_deit,
        huggingface_deit_one_head,
        huggingface_vit,
        huggingface_flax,
        huggingface_clip_classifier,
        huggingface_clip,
        huggingface_siglip_classifier,
        huggingface_siglip,
        torchvision,
        torch_encoder,
        openai_clip,
        mmpretrain,
        dinov2_chunked,
    )
}
