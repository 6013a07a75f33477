"""Your own models, of any framework: captured, and compared stage by stage; and your training loops, step by step."""

from vit_parity.porting import (
    assert_golden,
    assert_parity,
    capture,
    capturing,
    compare_digests,
    compare_ema,
    compare_optimizers,
    compare_steps,
    record_masks,
    replay_masks,
    suggest_pairs,
    tag,
)

__all__ = [
    "assert_golden",
    "assert_parity",
    "capture",
    "capturing",
    "compare_digests",
    "compare_ema",
    "compare_optimizers",
    "compare_steps",
    "record_masks",
    "replay_masks",
    "suggest_pairs",
    "tag",
]
