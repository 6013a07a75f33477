"""What is said of a compiler's time before it begins. Oracle: arithmetic on the blocks that are compiled."""

from __future__ import annotations

from tests.vit_jax.training.ahead.test_topology import chips
from vit_jax.training.ahead.duration import seconds, words
from vit_jax.training.ahead.topology import Topology
from vit_jax.training.devices.chips import H100, V5E
from vit_spec import get_model

SLICE = Topology("v5e:2x4", V5E, (2, 4), chips(2, 4))
NODE = Topology("h100:1x8", H100, (1, 8), chips(8, 1))


def test_a_scan_counts_the_blocks_that_differ_once() -> None:
    """Of Swin-T two a stage, since every other block shifts its windows."""
    small, large, swin = (
        get_model(name).config
        for name in ("vit_small_patch16_224", "vit_large_patch16_224", "swin_tiny_patch4_window7_224")
    )
    one = seconds(small, SLICE, scan=True)
    assert one == seconds(large, SLICE, scan=True)
    each = (seconds(swin, SLICE, scan=True) - one) / 7
    assert each > 0
    more = seconds(large, SLICE, scan=False) - seconds(small, SLICE, scan=False)
    assert more > 12 * each  # 24 blocks instead of 12


def test_what_a_scan_would_save_is_told_where_it_is_minutes() -> None:
    large, tiny = (get_model(f"vit_{size}_patch16_224").config for size in ("large", "tiny"))
    assert "with --scan" in words(large, SLICE, scan=False)
    assert "with --scan" not in words(large, SLICE, scan=True)
    assert "with --scan" not in words(tiny, NODE, scan=False)
    assert words(large, SLICE, scan=True).startswith("about 1 min on two free cores")
