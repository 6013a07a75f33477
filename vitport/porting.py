"""Your own models, of any framework: captured, and compared stage by stage."""

from vit_parity.porting import assert_golden, assert_parity, capture, capturing, suggest_pairs, tag

__all__ = ["assert_golden", "assert_parity", "capture", "capturing", "suggest_pairs", "tag"]
