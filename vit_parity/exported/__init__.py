"""Models as graphs that run without vitport: written by the frameworks' exporters, and run back by other programs."""

from vit_parity.exported.proof import Difference, run_back
from vit_parity.exported.write import KINDS, Exported, data_beside, export

__all__ = ["KINDS", "Difference", "Exported", "data_beside", "export", "run_back"]
