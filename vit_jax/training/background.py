"""Something that ends in its own time, or never: waited for with a limit, and no obstacle to the process's end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


class Background:
    """Runs a function in a thread."""

    def __init__(self, act: Callable[[], object]) -> None:
        self.result: Any = None
        self.error: BaseException | None = None
        """What it raised."""
        self._ended = threading.Event()
        self._act = act
        threading.Thread(target=self._run, daemon=True).start()

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self._ended.is_set()

    def wait(self, seconds: float | None) -> bool:
        """Waits for its end, at most so long; whether it came."""
        return self._ended.wait(seconds)

    def _run(self) -> None:
        try:
            self.result = self._act()
        except BaseException as error:  # for whoever waits
            self.error = error
        finally:
            self._ended.set()
