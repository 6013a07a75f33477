"""A run, from its first step or its newest checkpoint to its end."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from vit_jax.preprocessing import normalise
from vit_jax.pure import Params
from vit_jax.training.data import Stream, evaluation_batches
from vit_jax.training.devices.engine import place_rows
from vit_jax.training.devices.sharding import shardings
from vit_jax.training.evaluation.scores import Scores, judge
from vit_jax.training.recipe.config import CONFIG, TrainConfig
from vit_jax.training.run.checkpoints import Checkpoints
from vit_jax.training.run.monitor import FiniteGuard, Line, Log, Throughput, writing
from vit_jax.training.run.resume import resume
from vit_jax.training.run.setup import Setup
from vit_jax.training.step.update import Batch, TrainState
from vit_spec import VitportError

VERSIONS = "versions.json"
STOPPED = 75
"""Exit status of a process that SIGTERM stopped and that saved its run: EX_TEMPFAIL, run again to resume."""


@dataclass(frozen=True)
class Finished:
    """How a run ended."""

    step: int
    stopped: bool
    """Whether SIGTERM stopped it before its last step."""
    scores: Scores | None
    """The last evaluation, if there was one."""
    skipped: Mapping[str, str]
    """Images that could not be read, with the reasons."""


def _ignore(*event: Any) -> None:
    del event


@dataclass(frozen=True)
class Callbacks:
    """What to call during a run; by default, nothing."""

    message: Callable[[str], None] = _ignore
    """Gets a sentence."""
    line: Callable[[Line, int], None] = _ignore
    """Gets a line of the log, and the number of steps of the whole run."""
    evaluation: Callable[[int, Mapping[str, float]], None] = _ignore
    """Gets the step, and the metrics of :class:`~vit_jax.training.evaluation.scores.Scores`."""


def run(
    setup: Setup, workdir: Path, callbacks: Callbacks | None = None, profile: tuple[int, int] | None = None
) -> Finished:
    """Trains to the end, from the newest checkpoint in the work directory if there is one.

    Args:
        workdir: gets configuration, versions, log and checkpoints.
        callbacks: called during the run.
        profile: first step, and number of steps, to trace into ``workdir/profile``.

    Raises:
        VitportError: if the directory cannot be written or holds another run, the profile lies outside the run, or a
            loss is not finite.
    """
    callbacks = callbacks or Callbacks()
    is_main = jax.process_index() == 0
    trace = _Trace(workdir / "profile", profile, setup.steps)
    with ExitStack() as stack:
        checkpoints = stack.enter_context(closing(Checkpoints(workdir, setup.options.keep)))
        state, step = resume(setup, checkpoints, callbacks.message)
        if is_main:
            _write_facts(setup.options, workdir)
        log = stack.enter_context(closing(Log(workdir, step))) if is_main else None
        stopped = stack.enter_context(_sigterm())
        feed = stack.enter_context(
            Stream(setup.train, setup.options.data, setup.preprocessing, batch=setup.options.batch, rows=setup.rows,
                   seed=setup.options.seed, first=step)
        )  # fmt: skip
        stack.callback(trace.stop)
        return _Loop(setup, workdir, callbacks, checkpoints, log, feed, step).run(state, stopped, trace)


class _Loop:
    """The steps of a run, and the logs, evaluations and checkpoints between them."""

    def __init__(
        self,
        setup: Setup,
        workdir: Path,
        callbacks: Callbacks,
        checkpoints: Checkpoints,
        log: Log | None,
        feed: Stream,
        step: int,
    ) -> None:
        self.setup, self.callbacks, self.checkpoints, self.log, self.feed = setup, callbacks, checkpoints, log, feed
        self.first = self.step = step
        self.guard = FiniteGuard(workdir, self._record_metrics)
        self.throughput = Throughput(setup.model, setup.options.batch)
        self.evaluation = Evaluation(setup)
        self.record = setup.record()
        self.scores: Scores | None = None
        self.skipped: dict[str, str] = {}
        self._unlogged: list[Mapping[str, float]] = []

    def run(self, state: Any, stop_requested: Callable[[int], bool], trace: _Trace) -> Finished:
        """To the end, from a state on the devices."""
        setup, keep = self.setup, self.setup.options.keep
        stopped = False
        while self.step < setup.steps and not stopped:
            trace.start_before(self.step)
            state = self._take_step(state)
            if trace.ends_after(self.step):
                self.guard.drain()
                trace.stop()
            last = self.step == setup.steps
            stopped = not last and stop_requested(self.step)
            metrics = None
            if setup.validation is not None and (last or self.step % (keep.evaluate or keep.every) == 0):
                metrics = self._evaluate(state)
            if last or stopped or self.step % keep.every == 0:
                self.guard.drain()  # no checkpoint of a run that diverged
                self.checkpoints.save(setup.engine.fetch(state), self.record, metrics)
                self.throughput.start()
        self.checkpoints.wait()
        return Finished(self.step, stopped, self.scores, {**self.feed.corrupt, **self.skipped})

    def _take_step(self, state: Any) -> Any:
        waiting = time.perf_counter()
        batch = next(self.feed)
        self.throughput.add_wait(time.perf_counter() - waiting)
        engine = self.setup.engine
        state, metrics = engine.step(state, engine.place_batch(batch))
        self.step += 1
        self.guard.add(self.step, batch, metrics)
        if self.step == self.first + 1:  # compiling does not count
            self.guard.drain()
            self.throughput.start()
        return state

    def _record_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Logs a finished step, or collects its metrics for the next line of the log."""
        if step > self.first + 1:
            self.throughput.add_step()
        self._unlogged.append(metrics)
        steps = self.setup.steps
        if step % self.setup.options.log_every and step != steps:
            return
        means = {name: float(np.mean([entry[name] for entry in self._unlogged])) for name in metrics}
        self._unlogged = []
        rate = float(np.asarray(self.setup.schedule(step - 1)))
        speed = self.throughput.measure(steps - step)
        line = Line(step, **means, learning_rate=rate, speed=speed, skipped=len(self.feed.corrupt))
        self.callbacks.line(line, steps)
        if self.log is not None:
            self.log.line(line)

    def _evaluate(self, state: Any) -> dict[str, float]:
        self.guard.drain()
        weights = TrainState(state.step, state.params if state.ema is None else state.ema, (), None)
        self.scores, skipped = self.evaluation(self.setup.engine.fetch(weights).params)
        self.skipped |= skipped
        metrics = self.scores.metrics()
        self.callbacks.evaluation(self.step, metrics)
        if self.log is not None:
            self.log.evaluation(self.step, metrics)
        self.throughput.start()
        return metrics


class _Trace:
    """Traces the requested steps that this process runs."""

    def __init__(self, folder: Path, requested: tuple[int, int] | None, steps: int) -> None:
        first, count = requested or (0, 0)
        if requested is not None and not (0 <= first < steps and count > 0):
            raise VitportError(
                f"--profile {first} {count} lies outside the run's {steps} steps: give a first step below {steps} and "
                "a count of 1 or more."
            )
        self._folder, self._steps = folder, range(first, first + count)
        self._running = False

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
        """Writes the trace; also when the run ends before the last of them."""
        if self._running:
            self._running = False
            jax.profiler.stop_trace()


class Evaluation:
    """Evaluates parameters, or their moving average, on the validation images."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        places = shardings(setup.shapes.params, setup.model, setup.mesh)
        inference = setup.inference()

        def judged(params: Params, batch: Batch) -> dict[str, jax.Array]:
            logits = inference(params, normalise(batch["image"], setup.preprocessing))
            return judge(logits, batch["label"], batch["weight"])

        everywhere = jax.sharding.NamedSharding(setup.mesh, jax.sharding.PartitionSpec())
        self._places = places
        self._judge = jax.jit(judged, out_shardings=everywhere)

    def __call__(self, params: Params) -> tuple[Scores, dict[str, str]]:
        """Scores, and the images that this process could not read, with the reasons."""
        setup = self._setup
        if setup.validation is None:
            raise VitportError(f"{setup.train.name} has no validation split: give data.validation.")
        params = jax.device_put(params, self._places)
        scores = Scores(setup.model.num_classes)
        data = setup.options.data
        batches = evaluation_batches(
            setup.validation,
            setup.preprocessing,
            batch=setup.options.batch,
            rows=setup.rows,
            workers=data.workers,
            corrupt=data.corrupt,
        )
        with batches:
            for batch in batches:
                with jax.set_mesh(setup.mesh):  # read by vit_jax.layers.xla.packed
                    scores.add(self._judge(params, place_rows(batch, setup.mesh)))
        return scores, dict(batches.corrupt)


@contextmanager
def _sigterm() -> Iterator[Callable[[int], bool]]:
    """A function that says, after each step, whether SIGTERM came to any process; all processes get the same answer."""
    if jax.process_count() > 1:  # JAX's own service listens for it
        yield multihost_utils.reached_preemption_sync_point
        return
    received: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    try:
        yield lambda step: bool(received)
    finally:
        signal.signal(signal.SIGTERM, before)


def _write_facts(options: TrainConfig, workdir: Path) -> None:
    names = ("vitport", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
    versions = {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in names}
    facts = {
        **versions,
        "devices": sorted({device.device_kind for device in jax.devices()}),
        "device_count": jax.device_count(),
        "process_count": jax.process_count(),
        "command": sys.argv,
    }
    for name, values in {CONFIG: options.to_dict(), VERSIONS: facts}.items():
        aside = workdir / f"{name}.part"
        with writing(aside):
            aside.write_text(json.dumps(values, indent=2) + "\n")
            aside.replace(workdir / name)
