"""The command ``vitport``."""
