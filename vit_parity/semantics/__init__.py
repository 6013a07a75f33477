"""What a file of weights means by its own names, computed in numpy and float64 without this project's models.

The names, the axes and the conventions of every format are written down here a second time, on purpose: a mistake in
``conversion.formats`` does not repeat itself here, and so ``vitport convert --verify`` finds it.
"""

from vit_parity.semantics.model import Facts, Semantics
from vit_parity.semantics.of_file import semantics_of_file

__all__ = ["Facts", "Semantics", "semantics_of_file"]
