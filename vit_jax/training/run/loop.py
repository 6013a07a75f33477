"""A run, from its first step or its newest checkpoint to its end."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vit_jax.training.data import Stream
from vit_jax.training.devices.connections import connect
from vit_jax.training.devices.processes import gather_messages, noticing_lost_processes, raise_on_all
from vit_jax.training.evaluation.scores import AnyScores, main_metric
from vit_jax.training.run.attention import check_kernel
from vit_jax.training.run.callbacks import Callbacks
from vit_jax.training.run.checkpoint_writer import CheckpointWriter
from vit_jax.training.run.checkpoints import CheckpointReader
from vit_jax.training.run.evaluation import Evaluation
from vit_jax.training.run.lease import Lease
from vit_jax.training.run.lock import Lock
from vit_jax.training.run.log import Log, begin_log
from vit_jax.training.run.monitor import FiniteGuard, Line, LossWatch, Throughput
from vit_jax.training.run.outside import check_outside
from vit_jax.training.run.place import Place
from vit_jax.training.run.resume import Progress, resume
from vit_jax.training.run.setup import Setup
from vit_jax.training.run.stopping import StoppedError, StopRequests
from vit_jax.training.run.trace import Trace
from vit_jax.training.run.writing import UnwrittenError
from vit_jax.training.step.update import TrainState


@dataclass(frozen=True)
class Finished:
    """How a run ended."""

    step: int
    stopped: signal.Signals | None
    """The signal that stopped it."""
    scores: AnyScores | None
    """The last evaluation, if there was one."""
    skipped: Mapping[str, str]
    """Images that could not be read, with the reasons."""
    early: str = ""
    """Why it ended before its last step by itself, in a sentence."""


def run(
    setup: Setup,
    workdir: str | Path | Place,
    callbacks: Callbacks | None = None,
    profile: tuple[int, int] | None = None,
) -> Finished:
    """Trains to the end, from the newest checkpoint in the work directory if there is one.

    From its first step on it takes SIGINT and SIGTERM, which stop it when it has saved what it trained.

    Args:
        workdir: gets configuration, versions, log and checkpoints; a path, an address in a bucket, or a place for one.
        callbacks: called during the run.
        profile: first step, and number of steps, to trace into ``workdir/profile``.

    Raises:
        VitportError: if the directory is in use by another process, cannot be written, lies among the images or holds
            another run, the profile lies outside the run, or a loss is not finite.
        LostProcessError: if another process has ended. This one has to end without JAX then, which waits for it.
    """
    if not isinstance(workdir, Place):
        with Place(workdir) as place:
            return run(setup, place, callbacks, profile)
    place, callbacks = workdir, callbacks or Callbacks()
    check_outside(place.name, setup.options.data)
    is_main = jax.process_index() == 0
    trace = Trace(place.folder / "profile", profile, setup.steps)
    with ExitStack() as stack, noticing_lost_processes():
        connect(setup.mesh)
        check_kernel(setup.attention, setup.model, setup.options.precision)
        stop = StopRequests()
        if jax.process_count() > 1:  # several can only stop together, where they meet
            stack.enter_context(stop)
        lock = stack.enter_context(place.held(callbacks.message))
        with closing(CheckpointReader(place.folder, place.mirror)) as reader:
            state, progress = resume(setup, reader, callbacks.message)
        if shortfall := trace.shortfall(progress.step):
            callbacks.message(shortfall)
        checkpoints = stack.enter_context(CheckpointWriter(place.folder, setup.options.keep, place.mirror))
        logs: list[Log] = []
        raise_on_all(lambda: logs.append(begin_log(setup, place, progress, callbacks.message)) if is_main else None)
        for log in logs:
            stack.enter_context(closing(log))
        if jax.process_count() == 1:
            stack.enter_context(stop)
        feed = stack.enter_context(
            Stream(setup.train, setup.options.data, setup.preprocessing, batch=setup.options.batch, rows=setup.rows,
                   seed=setup.options.seed, first=progress.step)
        )  # fmt: skip
        stack.callback(trace.stop)
        loop = _Loop(
            setup, place, callbacks, checkpoints, lock, next(iter(logs), None), feed, stop, state, progress
        )  # fmt: skip
        finished = loop.run(trace)
        place.push()
        return finished


class _Loop:
    """The steps of a run, and the logs, evaluations and checkpoints between them."""

    def __init__(
        self,
        setup: Setup,
        place: Place,
        callbacks: Callbacks,
        checkpoints: CheckpointWriter,
        lock: Lock | Lease | None,
        log: Log | None,
        feed: Stream,
        stop: StopRequests,
        state: Any,
        progress: Progress,
    ) -> None:
        self.setup, self.callbacks, self.checkpoints, self.feed = setup, callbacks, checkpoints, feed
        self.lock, self.log, self.stop = lock, log, stop
        self.state, self.progress = state, progress
        self.first = self.step = progress.step
        self.saved: int | None = progress.step
        self.place = place
        self.guard = FiniteGuard(place.folder, self._record_metrics, place.name)
        self.throughput = Throughput(setup.model, setup.options.batch, setup.options.recipe.optimizer.frozen)
        self.watch = LossWatch()
        self.evaluation = Evaluation(setup, stop)
        self.record = setup.record()
        self.scores: AnyScores | None = None
        self.skipped: dict[str, str] = {}
        """Validation images that could not be read, with the reasons."""
        self.trouble: UnwrittenError | None = None
        """What this process could not write."""

    def run(self, trace: Trace) -> Finished:
        """To the end, or until it is stopped.

        Raises:
            UnwrittenError: if something could not be written, after another attempt to save the run.
        """
        try:
            self._take_steps(trace)
        except UnwrittenError as error:
            self._fail(error)
        trouble = next(filter(None, gather_messages("" if self.trouble is None else str(self.trouble))), None)
        if trouble is None:
            try:
                self._save()
                self.checkpoints.wait()
            except UnwrittenError as error:
                trouble = str(error)
        if trouble is not None:
            raise UnwrittenError(f"{trouble} {self._save_again()}")
        early = self.progress.early(self.setup.options.keep) if self.step < self.setup.steps else ""
        return Finished(self.step, self.stop.signal, self.scores, {**self._skipped(), **self.skipped}, early)

    def _take_steps(self, trace: Trace) -> None:
        setup, keep = self.setup, self.setup.options.keep
        try:
            if self.progress.evaluates:
                self.checkpoints.evaluated(self.step, self._evaluate())
            while self.step < setup.steps and not self.stop() and not self.progress.early(keep):
                trace.start_before(self.step)
                self._take_step()
                if trace.ends_after(self.step):
                    self.guard.drain()
                    trace.stop()
                last = self.step == setup.steps
                due = setup.validation is not None and (last or self.step % setup.evaluate_every == 0)
                metrics = self._evaluate() if due else None
                patient = metrics is not None and setup.options.keep.patience is not None
                if last or patient or self.step % setup.save_every == 0:
                    self._save(metrics)
                self._look()
        except StoppedError:
            return

    def _take_step(self) -> None:
        waiting = time.perf_counter()
        with self.stop.interruptible():
            batch = next(self.feed)
        self.throughput.add_wait(time.perf_counter() - waiting)
        engine = self.setup.engine
        self.state, metrics = engine.step(self.state, engine.place_batch(batch))
        self.step += 1
        self.guard.add(self.step, batch, metrics, len(self._skipped()))
        if self.step == self.first + 1:  # compiling does not count
            self.guard.drain()
            self.throughput.start()

    def _record_metrics(self, step: int, metrics: Mapping[str, float], skipped: int) -> None:
        """Logs a finished step, or collects its metrics for the next line of the log."""
        if step > self.first + 1:
            self.throughput.add_step()
        unlogged = self.progress.unlogged
        unlogged.append(metrics)
        steps = self.setup.steps
        if step % self.setup.options.log_every and step != steps:
            return
        means = {name: float(np.mean([entry[name] for entry in unlogged])) for name in metrics}
        unlogged.clear()
        rate = float(np.asarray(self.setup.schedule(step - 1)))
        speed = self.throughput.measure(steps - step)
        line = Line(step, **means, learning_rate=rate, speed=speed, skipped=skipped)
        self.callbacks.line(line, steps)
        self.watch.add(line, self.callbacks.message)
        self._write(lambda log: log.line(line))

    def _evaluate(self) -> dict[str, float]:
        self.guard.drain()
        self.progress.evaluates = True
        with self._apart() as state:
            self.scores, skipped = self.evaluation(state.params if state.ema is None else state.ema)
        self.skipped |= skipped
        self.progress.evaluates = False
        metrics = self.scores.metrics()
        self.progress.evaluated(self.step, main_metric(metrics)[1])
        self.callbacks.evaluation(self.step, metrics)
        self._write(lambda log: log.evaluation(self.step, metrics))
        self.throughput.start()
        return metrics

    @contextmanager
    def _apart(self) -> Iterator[TrainState]:
        """The state with blocks stored separately, while nothing trains."""
        state = self.setup.engine.fetch(self.state)
        try:
            yield state
        finally:
            self.state = self.setup.engine.place_state(state)

    def _skipped(self) -> dict[str, str]:
        """Training images that could not be read, with the reasons; also those of earlier starts."""
        return {**self.progress.skipped, **self.feed.corrupt}

    def _save(self, metrics: Mapping[str, float] | None = None) -> None:
        if self.saved == self.step:
            return
        self.guard.drain()  # no checkpoint of a run that diverged
        self._write(lambda log: log.flush())
        raise_on_all(self._check_lock, UnwrittenError)
        progress = replace(self.progress, skipped=self._skipped(), unwritten=self.log.unwritten if self.log else [])
        with self._apart() as state:
            self.checkpoints.save(state, self.record | progress.record(), metrics)
        self.saved = self.step
        self.throughput.start()

    def _save_again(self) -> str:
        """A last try, where that is possible; how it went, in a sentence."""
        self.saved = None
        try:
            if any(gather_messages("stuck" if jax.process_count() > 1 and self.checkpoints.failed else "")):
                raise UnwrittenError("Other processes may wait for a write that will never end.")
            self._save()
            self.checkpoints.wait()
        except UnwrittenError:
            saved = []
            with suppress(OSError):
                saved = self.checkpoints.steps()
            newest = f"the newest checkpoint is that of step {saved[-1]}" if saved else "there is no checkpoint"
            return f"Step {self.step} could not be saved at the second attempt either; {newest}."
        return f"Step {self.step} is saved."

    def _write(self, act: Callable[[Log], None]) -> None:
        """To the log; if that fails, the run stops."""
        if self.log is not None:
            try:
                self._check_lock()
                act(self.log)
            except UnwrittenError as error:
                self._fail(error)

    def _look(self) -> None:
        """Whether everything that goes on in the background is well; else the run stops."""
        try:
            self.checkpoints.poll()
            for one in (self.lock, self.place.mirror):
                if one is not None and one.trouble is not None:
                    raise UnwrittenError(one.trouble)
        except UnwrittenError as error:
            self._fail(error)

    def _check_lock(self) -> None:
        if self.lock is not None:
            self.lock.check()

    def _fail(self, error: UnwrittenError) -> None:
        if self.trouble is None:
            self.trouble = error
            self.stop.request()
