"""The parent's end of a side: a persistent worker, a fresh worker for every measurement, or a plain command."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from benchmarks.side import UnavailableError

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Sample:
    """One measurement."""

    seconds: float
    """Of one run of the part."""
    peak: float = float("nan")
    """Peak resident bytes of the whole process during the run."""
    ready: float = float("nan")
    """Seconds from the process's start until its side was built, if it was started for this measurement."""
    begun: float = float("nan")
    """Seconds until the part had begun to compute, where it was the first run of a process that tells."""


class Runner(Protocol):
    """Anything that can be measured."""

    def measure(self, part: str, count: int) -> Sample: ...


class Worker:
    """A process that has built its side and waits; close it after use.

    Args:
        target: ``MODULE:FUNCTION`` that builds the side.
        arguments: JSON values for the function.
        environment: variables beside those of this process.
        python: interpreter; ``None`` means this one.

    Raises:
        UnavailableError: if the side's libraries are not there.
        RuntimeError: if the process ends, with the end of what it said.
    """

    def __init__(
        self,
        target: str,
        arguments: Mapping[str, Any],
        environment: Mapping[str, str] | None = None,
        python: str | None = None,
    ) -> None:
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the worker
        start = time.perf_counter()
        self._process = subprocess.Popen(
            [python or sys.executable, "-m", "benchmarks.worker", target, json.dumps(arguments)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, text=True, cwd=ROOT,
            env=os.environ | dict(environment or {}),
        )  # fmt: skip
        reply = self._read(target)
        self.ready = time.perf_counter() - start
        if "missing" in reply:
            self.close()
            raise UnavailableError(reply["missing"])
        self.facts: dict[str, Any] = reply["facts"]

    def measure(self, part: str, count: int) -> Sample:
        """Run a part so many times."""
        reply = self._ask({"do": "run", "part": part, "count": count})
        return Sample(reply["seconds"], reply["peak"], self.ready)

    def answers(self) -> dict[str, np.ndarray]:
        """What the side computes."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "answers.npz"
            self._ask({"do": "answers", "path": str(path)})
            with np.load(path) as found:
                return dict(found)

    def close(self) -> None:
        """End the process, and its file."""
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(BrokenPipeError):  # of a request that nobody read
                if pipe is not None:
                    pipe.close()
        self._process.terminate()
        self._process.wait()
        self._said.close()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None  # it is a pipe
        with contextlib.suppress(BrokenPipeError):  # reading the answer says why
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        return self._read(str(request))

    def _read(self, asked: str) -> dict[str, Any]:
        assert self._process.stdout is not None  # it is a pipe
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        self._process.wait()
        self._said.seek(0)
        said = self._said.read().decode(errors="replace").strip()[-4000:]
        self.close()
        raise RuntimeError(f"The worker ended (status {self._process.returncode}) at {asked}:\n{said}")


@dataclass(frozen=True)
class Fresh:
    """A new process for every measurement, which is the first run of a part."""

    start: Callable[[], Worker]
    answers: dict[str, np.ndarray]
    """Gets what the latest process computed."""
    begun: str | None = None
    """A part of the side that gives the seconds until its first run had begun to compute."""

    def measure(self, part: str, count: int) -> Sample:
        """From the call to its end, compilation and all."""
        worker = self.start()
        try:
            sample = worker.measure(part, count)
            self.answers.update(worker.answers())
            if self.begun is not None:
                sample = dataclasses.replace(sample, begun=worker.measure(self.begun, 1).seconds)
        finally:
            worker.close()
        return sample


@dataclass(frozen=True)
class Command:
    """A command, from its start to its end."""

    arguments: Sequence[str]

    def measure(self, part: str, count: int) -> Sample:
        """Run it ``count`` times; ``part`` is ignored."""
        del part
        start = time.perf_counter()
        for _ in range(count):
            subprocess.run(self.arguments, check=True, capture_output=True, cwd=ROOT)
        return Sample((time.perf_counter() - start) / count)
