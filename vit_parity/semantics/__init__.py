"""What a file of weights means by its own names, computed in numpy and float64 without this project's models.

``Format.second_reading`` describes every format's names, axes and conventions a second time, apart from the rules that
convert it. A mistake in either makes ``vitport convert --verify`` fail.
"""

from vit_parity.semantics.of_file import semantics_of_file
from vit_parity.semantics.vit import Facts, Semantics

__all__ = ["Facts", "Semantics", "semantics_of_file"]
