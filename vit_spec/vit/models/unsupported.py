"""Names of timm whose blocks this project does not compute, and why."""

_BRANCHES = "its blocks add two attentions, then two MLPs, side by side"
_DIFFERENTIAL = "its attention subtracts a second softmax (differential attention)"
_GROUPED = "several of its query heads share keys and values (grouped queries), and layer scale is on attention alone"

UNSUPPORTED: dict[str, str] = {
    "vit_dpwee_patch16_reg1_gap_256": _DIFFERENTIAL,
    "vit_small_patch16_18x2_224": _BRANCHES,
    "vit_base_patch16_18x2_224": _BRANCHES,
    "vit_dwee_patch16_reg1_gap_256": _DIFFERENTIAL,
    "vit_dlittle_patch16_reg1_gap_256": _DIFFERENTIAL,
    **{f"vit_{size}_patch16_sapiens2": _GROUPED for size in ("base", "large", "huge", "giant", "5b")},
}
