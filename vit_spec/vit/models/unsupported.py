"""Names of timm whose blocks this project does not compute, and why."""

_QWEN = "timm keeps its encoder inside another module, and resizes its table of positions in every forward pass"
_DEEPSEEK = "its attention has biases, and its MLP none"
_PROJECTOR = "joins neighbouring patches for a language model behind its encoder"
_NAFLEX = "it reads patches of images of any shape, and padding where a batch has fewer"
_NAFLEX_MODELS = (
    "base_patch16_gap", "base_patch16_map", "base_patch16_par_gap", "base_patch16_parfac_gap", "base_patch16_siglip",
    "so400m_patch16_siglip", "so150m2_patch16_reg1_gap", "so150m2_patch16_reg1_map", "base_patch16_radio_v3",
    "large_patch16_radio_v3", "huge_patch16_radio_v3", "giant_patch16_radio_v3", "huge_patch16_radio_v4",
    "so400m_patch16_radio_v4",
)  # fmt: skip

UNSUPPORTED: dict[str, str] = {
    **{f"naflexvit_{name}": _NAFLEX for name in _NAFLEX_MODELS},
    **{f"qwen3_vit_{size}": _QWEN for size in ("88m", "306m", "416m")},
    **{f"qwen3_vit_{size}_{end}": f"it {_PROJECTOR}" for size in ("88m", "306m", "416m") for end in ("merge", "enc")},
    "deepseek_vit_412m": _DEEPSEEK,
    **{f"deepseek_vit_412m_{end}": f"{_DEEPSEEK}, and it {_PROJECTOR}" for end in ("align", "enc")},
}
