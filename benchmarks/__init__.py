"""Commands that measure; each runs as ``python -m benchmarks.NAME``."""
