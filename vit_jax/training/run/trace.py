"""Traces some steps of a run."""

from __future__ import annotations

from pathlib import Path

import jax

from vit_jax.training.run.writing import UnwrittenError
from vit_spec import VitportError


class Trace:
    """Traces the requested steps that this process runs."""

    def __init__(self, folder: Path, requested: tuple[int, int] | None, steps: int) -> None:
        first, count = requested or (0, 0)
        if requested is not None and not (0 <= first < steps and count > 0):
            raise VitportError(
                f"--profile {first} {count} lies outside the run's {steps} steps: give a first step below {steps} and "
                "a count of 1 or more."
            )
        self._folder, self._steps, self._end = folder, range(first, first + count), steps
        self._running = False

    def shortfall(self, taken: int) -> str | None:
        """What of the request cannot be traced, in a sentence.

        Args:
            taken: steps that the run took before this start.
        """
        first, last = max(self._steps.start, taken), min(self._steps.stop, self._end)
        if not self._steps or (first, last) == (self._steps.start, self._steps.stop):
            return None
        asked = f"--profile {self._steps.start} {len(self._steps)} asks for steps that this start does not take"
        return f"{asked}: {f'it traces steps {first + 1} to {last}' if first < last else 'it traces nothing'}."

    def start_before(self, taken: int) -> None:
        """Starts the trace before the next step, if that is one of them.

        Args:
            taken: steps so far.
        """
        if taken in self._steps and not self._running:
            jax.profiler.start_trace(self._folder)
            self._running = True

    def ends_after(self, taken: int) -> bool:
        """Whether the last of them has been taken."""
        return self._running and taken not in self._steps

    def stop(self) -> None:
        """Writes the trace; also when the run ends before the last of them.

        Raises:
            UnwrittenError: if that fails.
        """
        if self._running:
            self._running = False
            try:
                jax.profiler.stop_trace()
            except (OSError, RuntimeError) as error:
                raise UnwrittenError(
                    f"The trace cannot be written to {self._folder} ({' '.join(str(error).split())[:200]}): check free "
                    "space and permissions, and run again."
                ) from error
