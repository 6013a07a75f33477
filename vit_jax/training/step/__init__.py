"""One training step as a pure function of arrays."""
