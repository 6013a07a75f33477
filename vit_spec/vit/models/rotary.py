"""Models with rotary positions, and EVA's, which share their code (timm's ``Eva``)."""

from __future__ import annotations

from vit_spec.vit.models.model import CENTRED, CLIP, IMAGENET, SIZES, Model, Options, joined, model
from vit_spec.vit.rotary import AxialRotary, DinoV3Rotary, MixedRotary

_WITHOUT_KEYS: Options = {"qkv_bias": False, "qv_bias": True}
_DINOV3: Options = {
    "num_classes": 0, "pool": "avg", "pos_embed": "none", "rotary": DinoV3Rotary(), "register_tokens": 4,
    "layer_scale": 1e-5, "norm_eps": 1e-5, "image_size": 256, "colours": IMAGENET, "crop": 1.0,
}  # fmt: skip
_GATED: Options = {"mlp": "swiglu", "activation": "silu"}


def _dinov3() -> list[Model]:
    """DINOv3 (Siméoni et al. 2025, table 2). timm names each twice: with biases of queries and values, and without.

    timm pools the mean of the patches; the authors' code gives the class token (``pool="token"``).
    """
    sizes: dict[str, tuple[tuple[int, int, int, float], Options]] = {
        "small": (SIZES["small"], {}),
        "small_plus": (SIZES["small"], _GATED),
        "base": (SIZES["base"], {}),
        "large": (SIZES["large"], {}),
        "huge_plus": ((1280, 32, 20, 4), _GATED),
    }
    return [
        *(
            model(f"vit_{name}_patch16_dinov3{ending}", size, **joined(_DINOV3, gate, biases))
            for ending, biases in (("", {"qkv_bias": False}), ("_qkvb", _WITHOUT_KEYS))
            for name, (size, gate) in sizes.items()
        ),
        model("vit_tiny_patch16_dinov3_qkvb", "tiny", **joined(_DINOV3, _WITHOUT_KEYS)),
        model("vit_7b_patch16_dinov3", (4096, 40, 32, 2), **joined(_DINOV3, _GATED, {"qkv_bias": False})),
    ]


def _lingbot() -> list[Model]:
    """LingBot's backbones, DINOv3 by their architecture."""
    common: Options = _DINOV3 | {"pool": "token", "image_size": 512, "interpolation": "bilinear", "resize": "squash"}
    giant: Options = _GATED | {"mlp_hidden_dim": 4096, "qkv_bias": False}
    return [
        *(model(f"vit_{size}_patch16_lingbot", **joined(common, _WITHOUT_KEYS)) for size in ("small", "base", "large")),
        model("vit_giant_patch16_lingbot", (1536, 40, 24, 4), **joined(common, giant)),
    ]


def _sapiens2() -> list[Model]:
    """Sapiens2 (arXiv:2604.21681). In all but eight blocks at either end, two heads share keys and values; here each
    has them for itself."""
    common: Options = {
        "num_classes": 0, "pos_embed": "none", "rotary": DinoV3Rotary(), "register_tokens": 8, "layer_scale": 1.0,
        "scale_attention_only": True, "qk_norm": True, "norm": "rmsnorm", "norm_bias": False, "mlp": "swiglu_packed",
        "activation": "silu", "image_size": (1024, 768), "colours": IMAGENET, "crop": 1.0, "interpolation": "bilinear",
        "resize": "squash",
    }  # fmt: skip
    sizes: dict[str, tuple[int, int, int, float]] = {
        "base": SIZES["base"], "large": SIZES["large"], "huge": SIZES["huge"], "giant": (1536, 40, 24, 4),
        "5b": (2432, 56, 32, 4),
    }  # fmt: skip
    return [model(f"vit_{name}_patch16_sapiens2", size, **common) for name, size in sizes.items()]


def _eva() -> list[Model]:
    """EVA (Fang et al. 2023, "EVA: Exploring the limits of masked visual representation learning"), and EVA-CLIP's
    largest, with norms after attention and MLP."""
    giant, enormous = (1408, 40, 16, 6144 / 1408), (1792, 64, 16, 15360 / 1792)
    mean: Options = _WITHOUT_KEYS | {"pool": "avg", "final_norm": "pooled", "colours": CLIP}
    clip: Options = _WITHOUT_KEYS | {"num_classes": 1024, "colours": CLIP}
    return [
        model("eva_giant_patch14_224", giant, **mean),
        model("eva_giant_patch14_336", giant, crop=1.0, resize="squash", **mean),
        model("eva_giant_patch14_560", giant, crop=1.0, resize="squash", **joined(mean, {"colours": IMAGENET})),
        model("eva_giant_patch14_clip_224", giant, **clip),
        model("eva02_enormous_patch14_clip_224", enormous, block="post_norm", **clip),
    ]


def _eva02() -> list[Model]:
    """EVA-02 (Fang et al. 2023, "EVA-02: A visual representation for neon genesis", table 3)."""
    common: Options = _WITHOUT_KEYS | {
        "rotary": AxialRotary(reference_grid=(16, 16)), "activation": "silu", "colours": CLIP,
    }  # fmt: skip
    mean: Options = common | {"pool": "avg", "final_norm": "pooled"}
    packed: Options = {"mlp": "swiglu_packed"}
    split: Options = {"mlp": "swiglu", "mlp_norm": True}
    sizes = {name: (*SIZES[name][:3], 8 / 3) for name in ("tiny", "small", "base", "large")}
    means = [
        model(
            f"eva02_{name}_patch14_{side}",
            sizes[name],
            **joined(mean, options, {"num_classes": 0 if side == 224 else 1000}),
            crop=0.9 if side == 224 else 1.0,
            resize="squash" if side == 448 else "shortest",
        )
        for name, options, sides in (
            ("tiny", packed, (224, 336)), ("small", packed, (224, 336)), ("base", split, (224, 448)),
            ("large", split, (224, 448)),
        )
        for side in sides
    ]  # fmt: skip
    clip: Options = common | split | {"attn_norm": True}
    return [
        *means,
        model("eva02_base_patch16_clip_224", sizes["base"], num_classes=512, **clip),
        model("eva02_large_patch14_clip_224", sizes["large"], num_classes=768, **clip),
        model("eva02_large_patch14_clip_336", sizes["large"], num_classes=768, crop=1.0, **clip),
    ]


def _searched() -> list[Model]:
    """timm's searched shapes (SBB) with rotary positions and registers."""
    common: Options = _WITHOUT_KEYS | {
        "class_token": False, "pool": "avg", "pos_embed": "none", "final_norm": "pooled", "layer_scale": 1e-5,
        "rotary": AxialRotary(reference_grid=(16, 16)), "crop": 0.95, "register_tokens": 1,
    }  # fmt: skip
    return [
        model("vit_medium_patch16_rope_reg1_gap_256", **common),
        model("vit_mediumd_patch16_rope_reg1_gap_256", **joined(common, {"qv_bias": False})),
        model("vit_betwixt_patch16_rope_reg4_gap_256", **joined(common, {"register_tokens": 4, "colours": CLIP})),
        model("vit_base_patch16_rope_reg1_gap_256", **common),
    ]


def _perception() -> list[Model]:
    """Perception Encoder (Bolya et al. 2025): core, and its variants for language and for spatial tasks."""

    def encoder(name: str, size: str | tuple[int, int, int, float], grid: int, **options: object) -> Model:
        gigantic = "gigantic" in name
        common: Options = {
            "rotary": AxialRotary(order="wh", offset=0.0 if gigantic else 1.0, reference_grid=(grid, grid)),
            "pre_norm": True, "patch_bias": False, "norm_eps": 1e-5, "colours": CENTRED, "crop": 1.0,
        }  # fmt: skip
        common |= {"class_token": False, "pos_embed": "patch"} if gigantic else {}
        return model(f"vit_pe_{name}", size, **joined(common, options))

    gigantic = (1536, 50, 16, 8960 / 1536)
    core: Options = {"pool": "map", "pool_prefix": True, "map_heads": 8}
    bare: Options = {"num_classes": 0, "pool": "avg", "final_norm": "none"}
    scaled: Options = {"layer_scale": 0.1}
    return [
        encoder("core_tiny_patch16_384", "tiny", 24, num_classes=512, **core),
        encoder("core_small_patch16_384", "small", 24, num_classes=512, **core),
        encoder("core_base_patch16_224", "base", 14, num_classes=1024, **core),
        encoder("core_large_patch14_336", "large", 24, num_classes=1024, **core),
        encoder("core_gigantic_patch14_448", gigantic, 32, num_classes=1280, map_hidden_dim=6144, **core),
        encoder("lang_large_patch14_448", (1024, 23, 16, 4), 32, **bare, **scaled),
        encoder("lang_gigantic_patch14_448", (1536, 47, 16, 8960 / 1536), 32, **bare, **scaled),
        *(encoder(f"spatial_{size}_patch16_512", size, 32, **bare) for size in ("tiny", "small", "base")),
        encoder("spatial_large_patch14_448", "large", 32, **bare),
        encoder("spatial_gigantic_patch14_448", gigantic, 32, **bare, **scaled),
    ]


def _rope_vit() -> list[Model]:
    """RoPE-ViT (Heo et al. 2024), axial and mixed, with a table of positions (``ape``) and without."""
    kinds = {"rope": AxialRotary(theta=100.0, order="wh"), "rope_mixed": MixedRotary()}
    tables = {"": "none", "_ape": "patch"}
    return [
        model(
            f"vit_{size}_patch16_{kind}{ending}_224", layer_scale=1e-5, rotary=rotary, pos_embed=table, colours=IMAGENET
        )
        for kind, rotary in kinds.items()
        for ending, table in tables.items()
        for size in ("small", "base", "large")
    ]


def _language_models() -> list[Model]:
    """Encoders of Qwen3-VL (arXiv:2511.21631) and DeepSeek-V4: the mean of the patches, where timm joins neighbouring
    ones for the language model behind (``global_pool="avg"`` there). DeepSeek pads images to a square."""
    common: Options = {
        "num_classes": 0, "class_token": False, "pool": "avg", "crop": 1.0,
        "rotary": AxialRotary(pairs="halves"),
    }  # fmt: skip
    qwen: Options = common | {
        "image_size": 768, "pos_embed": "patch", "pos_embed_resize": "scipy-zoom", "final_norm": "none",
        "activation": "gelu_tanh", "resize": "squash",
    }  # fmt: skip
    deepseek: Options = common | {
        "image_size": 546, "patch_size": 14, "pos_embed": "none", "norm": "rmsnorm", "norm_bias": False,
        "mlp": "swiglu_packed", "activation": "silu", "mlp_bias": False,
    }  # fmt: skip
    return [
        *(
            model(f"qwen3_vit_{name}_enc", size, **qwen)
            for name, size in (("88m", "base"), ("306m", "large"), ("416m", "so400m"))
        ),
        model("deepseek_vit_412m_enc", (1024, 32, 16, 2816 / 1024), **deepseek),
    ]


ROTARY: list[Model] = [
    *_dinov3(), *_lingbot(), *_sapiens2(), *_eva(), *_eva02(), *_searched(), *_perception(), *_rope_vit(),
    *_language_models(),
]  # fmt: skip
