"""The numbers of the initialisation, read by both frameworks.

Tokens and position table: truncated normal of standard deviation 0.02. Linear layers: truncated normal of
0.01, zero bias. Convolution: Kaiming normal over the fan-out (He et al. 2015), zero bias. Norms: 1 and 0.
The truncation is PyTorch's ``trunc_normal_`` default, at the absolute values -2 and 2: a hundred or more
standard deviations away, so the distribution is the plain normal one.
"""

TOKEN_STD = 0.02
LINEAR_STD = 0.01
CONV_GAIN = 2.0
"""Variance gain over fan-out: ``std = sqrt(CONV_GAIN / (out_channels * patch_size**2))``."""
