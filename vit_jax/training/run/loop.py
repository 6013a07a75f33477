"""A run from its first step, or from its last checkpoint, to its end."""

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

from vit_jax.training.data import Stream, evaluation_batches
from vit_jax.training.devices.engine import place_rows
from vit_jax.training.devices.sharding import shardings
from vit_jax.training.evaluation.scores import Scores, make_judge
from vit_jax.training.recipe.config import TrainConfig
from vit_jax.training.run.checkpoints import Checkpoints
from vit_jax.training.run.monitor import Clock, Line, Log, Watch, writing
from vit_jax.training.run.resume import begin
from vit_jax.training.run.setup import Setup
from vit_jax.training.step.forward import Params
from vit_jax.training.step.update import TrainState
from vit_spec import VitportError

CONFIG = "config.json"
VERSIONS = "versions.json"
STOPPED = 75
"""Status of a process that was told to end by SIGTERM and saved: EX_TEMPFAIL, run again to go on."""


@dataclass(frozen=True)
class Finished:
    """How a run ended."""

    step: int
    stopped: bool
    """By SIGTERM, before its end."""
    scores: Scores | None
    """Of the last evaluation, if there was one."""
    skipped: Mapping[str, str]
    """Pictures that could not be read, with the reasons."""


@dataclass(frozen=True)
class Telling:
    """Who is told what while a run goes on."""

    say: Callable[[str], None]
    """A sentence."""
    line: Callable[[Line, int], None]
    """An entry of the log, and the steps of the whole run."""
    evaluation: Callable[[int, Mapping[str, float]], None]
    """Step, and the metrics of :class:`~vit_jax.training.evaluation.scores.Scores`."""


def run(setup: Setup, workdir: Path, tell: Telling, profile: tuple[int, int] | None = None) -> Finished:
    """Trains to the end, from the newest checkpoint in the work directory if there is one.

    Args:
        workdir: gets configuration, versions, log and checkpoints.
        profile: first step, and number of steps, of which a trace is kept in ``workdir/profile``.

    Raises:
        VitportError: if the directory cannot be written or is another run's, the profile is of steps that the run does
            not have, or the loss is no number.
    """
    first_process = jax.process_index() == 0
    trace = _Trace(workdir / "profile", profile, setup.steps)
    with ExitStack() as stack:
        kept = stack.enter_context(closing(Checkpoints(workdir, setup.options.keep)))
        state, step = begin(setup, kept, tell.say)
        if first_process:
            _write_about(setup.options, workdir)
        log = stack.enter_context(closing(Log(workdir, step))) if first_process else None
        stopped = stack.enter_context(_listening())
        feed = stack.enter_context(
            Stream(setup.train, setup.options.data, setup.preprocessing, batch=setup.options.batch, rows=setup.rows,
                   seed=setup.options.seed, first=step)
        )  # fmt: skip
        stack.callback(trace.stop)
        return _Loop(setup, workdir, tell, kept, log, feed, step).go(state, stopped, trace)


class _Loop:
    """The steps of a run, with what happens between them."""

    def __init__(
        self, setup: Setup, workdir: Path, tell: Telling, kept: Checkpoints, log: Log | None, feed: Stream, step: int
    ) -> None:
        self.setup, self.workdir, self.tell, self.kept, self.log, self.feed = setup, workdir, tell, kept, log, feed
        self.begun = self.step = step
        self.watch = Watch(workdir, self._read)
        self.clock = Clock(setup.model, setup.options.batch)
        self.evaluation = Evaluation(setup)
        self.record = setup.record()
        self.scores: Scores | None = None
        self.skipped: dict[str, str] = {}
        self._unlogged: list[Mapping[str, float]] = []

    def go(self, state: Any, asked: Callable[[int], bool], trace: _Trace) -> Finished:
        """From a state on the devices to the end."""
        setup, keep = self.setup, self.setup.options.keep
        stopped = False
        while self.step < setup.steps and not stopped:
            trace.start_before(self.step)
            state = self._take_step(state)
            if trace.ends_after(self.step):
                self.watch.drain()
                trace.stop()
            last = self.step == setup.steps
            stopped = not last and asked(self.step)
            evaluated = None
            if setup.validation is not None and (last or self.step % (keep.evaluate or keep.every) == 0):
                evaluated = self._evaluate(state)
            if last or stopped or self.step % keep.every == 0:
                self.watch.drain()  # so that nothing is kept that is no number
                self.kept.save(setup.engine.fetch(state), self.record, evaluated)
                self.clock.start()
        self.kept.wait()
        return Finished(self.step, stopped, self.scores, {**self.feed.corrupt, **self.skipped})

    def _take_step(self, state: Any) -> Any:
        waiting = time.perf_counter()
        batch = next(self.feed)
        self.clock.waited(time.perf_counter() - waiting)
        engine = self.setup.engine
        state, metrics = engine.step(state, engine.place_batch(batch))
        self.step += 1
        self.watch.add(self.step, batch, metrics)
        if self.step == self.begun + 1:  # what it took to compile is no throughput
            self.watch.drain()
            self.clock.start()
        return state

    def _read(self, step: int, metrics: Mapping[str, float]) -> None:
        """A step is done, and these are its metrics."""
        if step > self.begun + 1:
            self.clock.step()
        self._unlogged.append(metrics)
        steps = self.setup.steps
        if step % self.setup.options.log_every and step != steps:
            return
        means = {name: float(np.mean([entry[name] for entry in self._unlogged])) for name in metrics}
        self._unlogged = []
        rate = float(np.asarray(self.setup.schedule(step - 1)))
        throughput = self.clock.throughput(steps - step)
        line = Line(step, **means, learning_rate=rate, throughput=throughput, skipped=len(self.feed.corrupt))
        self.tell.line(line, steps)
        if self.log is not None:
            self.log.line(line)

    def _evaluate(self, state: Any) -> dict[str, float]:
        self.watch.drain()
        weights = TrainState(state.step, state.params if state.ema is None else state.ema, (), None)
        self.scores, skipped = self.evaluation(self.setup.engine.fetch(weights).params)
        self.skipped |= skipped
        metrics = self.scores.metrics()
        self.tell.evaluation(self.step, metrics)
        if self.log is not None:
            self.log.evaluation(self.step, metrics)
        self.clock.start()
        return metrics


class _Trace:
    """Of those of the asked-for steps that this start takes."""

    def __init__(self, folder: Path, asked: tuple[int, int] | None, steps: int) -> None:
        first, count = asked or (0, 0)
        if asked is not None and not (0 <= first < steps and count > 0):
            raise VitportError(
                f"--profile {first} {count} is no part of the run's {steps} steps: give a step before its end, and a "
                "count of 1 or more."
            )
        self._folder, self._steps = folder, range(first, first + count)
        self._running = False

    def start_before(self, taken: int) -> None:
        """The next step, where that is one of them, after so many."""
        if taken in self._steps and not self._running:
            jax.profiler.start_trace(self._folder)
            self._running = True

    def ends_after(self, taken: int) -> bool:
        """Whether the last of them is among the steps taken."""
        return self._running and taken not in self._steps

    def stop(self) -> None:
        """Writes it, also where the run ends before its last step does."""
        if self._running:
            self._running = False
            jax.profiler.stop_trace()


class Evaluation:
    """The validation pictures under a run's parameters, or their moving average."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        places = shardings(setup.shapes.params, setup.model, setup.mesh)
        judge = make_judge(setup.inference(), setup.preprocessing)
        everywhere = jax.sharding.NamedSharding(setup.mesh, jax.sharding.PartitionSpec())
        self._places = places
        self._judge = jax.jit(judge, out_shardings=everywhere)

    def __call__(self, params: Params) -> tuple[Scores, dict[str, str]]:
        """Scores, and this process's pictures that could not be read, with the reasons."""
        setup = self._setup
        if setup.validation is None:
            raise VitportError(f"{setup.train.name} sets no validation pictures apart: name some as data.validation.")
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
                with jax.set_mesh(setup.mesh):  # which vit_jax.layers.xla.packed asks for
                    scores.add(self._judge(params, place_rows(batch, setup.mesh)))
        return scores, dict(batches.corrupt)


@contextmanager
def _listening() -> Iterator[Callable[[int], bool]]:
    """Whether SIGTERM came: to this process, or to any of several; asked after each step, all get the same answer."""
    if jax.process_count() > 1:  # JAX's own service listens
        yield multihost_utils.reached_preemption_sync_point
        return
    came: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
    try:
        yield lambda step: bool(came)
    finally:
        signal.signal(signal.SIGTERM, before)


def _write_about(options: TrainConfig, workdir: Path) -> None:
    names = ("vitport", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
    versions = {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in names}
    about = {
        **versions,
        "devices": sorted({device.device_kind for device in jax.devices()}),
        "device_count": jax.device_count(),
        "process_count": jax.process_count(),
        "command": sys.argv,
    }
    for name, values in {CONFIG: options.to_dict(), VERSIONS: about}.items():
        aside = workdir / f"{name}.part"
        with writing(aside):
            aside.write_text(json.dumps(values, indent=2) + "\n")
            aside.replace(workdir / name)
