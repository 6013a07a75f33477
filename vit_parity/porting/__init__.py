"""Models of any framework compared, by those who port them: no format, no config, no tolerance."""

from vit_parity.porting.averages import compare_ema
from vit_parity.porting.capture import capture
from vit_parity.porting.compare import compare, suggest_pairs
from vit_parity.porting.compared_digests import DigestFindings, DigestRow, compare_digests
from vit_parity.porting.compared_steps import ComparedStep, ComparedSteps, compare_steps
from vit_parity.porting.digests import Digest, DigestedStage
from vit_parity.porting.findings import Fault, PortedRow, Porting
from vit_parity.porting.gradient_findings import GradientFault, GradientRow, Gradients
from vit_parity.porting.kept_steps import Steps
from vit_parity.porting.masks import Masks, record_masks, replay_masks
from vit_parity.porting.optimizers import OptimizerFindings, OptimizerStep, compare_optimizers
from vit_parity.porting.pairs import Pair
from vit_parity.porting.suggest import Suggestion
from vit_parity.porting.tags import tag
from vit_parity.porting.testing import assert_golden, assert_parity
from vit_parity.porting.training_loop import capturing

__all__ = [
    "ComparedStep",
    "ComparedSteps",
    "Digest",
    "DigestFindings",
    "DigestRow",
    "DigestedStage",
    "Fault",
    "GradientFault",
    "GradientRow",
    "Gradients",
    "Masks",
    "OptimizerFindings",
    "OptimizerStep",
    "Pair",
    "PortedRow",
    "Porting",
    "Steps",
    "Suggestion",
    "assert_golden",
    "assert_parity",
    "capture",
    "capturing",
    "compare",
    "compare_digests",
    "compare_ema",
    "compare_optimizers",
    "compare_steps",
    "record_masks",
    "replay_masks",
    "suggest_pairs",
    "tag",
]
