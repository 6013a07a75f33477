"""Names of timm whose blocks this project does not compute, and why."""

_QWEN = "timm keeps its encoder inside another module, and resizes its table of positions in every forward pass"
_DEEPSEEK = "its attention has biases, and its MLP none"
_PROJECTOR = "joins neighbouring patches for a language model behind its encoder"

UNSUPPORTED: dict[str, str] = {
    **{f"qwen3_vit_{size}": _QWEN for size in ("88m", "306m", "416m")},
    **{f"qwen3_vit_{size}_{end}": f"it {_PROJECTOR}" for size in ("88m", "306m", "416m") for end in ("merge", "enc")},
    "deepseek_vit_412m": _DEEPSEEK,
    **{f"deepseek_vit_412m_{end}": f"{_DEEPSEEK}, and it {_PROJECTOR}" for end in ("align", "enc")},
}
