"""Compiles a run's step for chips that are not here, and says what the compiled program costs (docs/launching.md)."""
