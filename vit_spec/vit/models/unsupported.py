"""Names of timm whose blocks this project does not compute, and why."""

_GROUPED = "several of its query heads share keys and values (grouped queries), and layer scale is on attention alone"

UNSUPPORTED: dict[str, str] = {
    f"vit_{size}_patch16_sapiens2": _GROUPED for size in ("base", "large", "huge", "giant", "5b")
}
