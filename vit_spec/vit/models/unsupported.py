"""Names of timm whose blocks this project does not compute, and why."""

ENCODER = "_enc"
"""Ending of the names of encoders whose classifiers have the names without it."""
_CLASSIFIER = "between the mean of its patches and its head is a norm without factors"
_PROJECTOR = "joins neighbouring patches for a language model behind its encoder"
_NAFLEX = "it reads patches of images of any shape, and padding where a batch has fewer"
_NAFLEX_MODELS = (
    "base_patch16_gap", "base_patch16_map", "base_patch16_par_gap", "base_patch16_parfac_gap", "base_patch16_siglip",
    "so400m_patch16_siglip", "so150m2_patch16_reg1_gap", "so150m2_patch16_reg1_map", "base_patch16_radio_v3",
    "large_patch16_radio_v3", "huge_patch16_radio_v3", "giant_patch16_radio_v3", "huge_patch16_radio_v4",
    "so400m_patch16_radio_v4",
)  # fmt: skip
_LANGUAGE_MODELS = {
    "qwen3_vit_88m": "merge", "qwen3_vit_306m": "merge", "qwen3_vit_416m": "merge", "deepseek_vit_412m": "align",
}  # fmt: skip
"""Encoders of language models → the ending of the name that keeps what joins patches."""

UNSUPPORTED: dict[str, str] = {
    **{f"naflexvit_{name}": _NAFLEX for name in _NAFLEX_MODELS},
    **{name: f"{_CLASSIFIER}; its encoder is {name}{ENCODER}" for name in _LANGUAGE_MODELS},
    **{
        f"{name}_{ending}": f"it {_PROJECTOR}; that encoder is {name}{ENCODER}"
        for name, ending in _LANGUAGE_MODELS.items()
    },
}
