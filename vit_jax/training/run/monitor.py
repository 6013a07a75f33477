"""What a run measures: metrics and throughput; and the end of a run that diverges."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import jax
import numpy as np

from vit_jax.training.data import Batch
from vit_jax.training.devices.chips import peak_flops
from vit_jax.training.run.writing import UnwrittenError, writing
from vit_jax.training.step.cost import step_flops
from vit_spec import Config, VitportError

_LAG = 2
"""Steps that the host dispatches ahead, so that the devices never wait for it."""


@dataclass(frozen=True)
class Speed:
    """Speed of the steps since the previous line."""

    images_per_second: float
    teraflops: float
    """10^12 operations of matrix products per second, over all devices."""
    mfu: float | None
    """Model FLOPs utilisation: the same as a share of the devices' peak; ``None`` where the peak is unknown."""
    data_wait: float
    """Share of the time that the loop waited for images."""
    seconds_left: float


@dataclass(frozen=True)
class Line:
    """One line of the log, with means over the steps since the previous line."""

    step: int
    loss: float
    accuracy: float
    """On the training images as mixed; correct is the class with the largest share of the target, or any of the labels
    of an image that may have several."""
    gradient_norm: float
    parameter_norm: float
    learning_rate: float
    speed: Speed | None
    """``None`` for the first step, whose time is that of compilation."""
    skipped: int
    """Images so far that this process could not read."""

    def values(self) -> dict[str, float | None]:
        """Everything but the step, as a flat dictionary; ``None`` where the speed is unknown.

        The fields of :class:`Speed` are the only ones that depend on time.
        """
        own = {name: value for name, value in asdict(self).items() if name not in ("step", "speed")}
        unknown = dict.fromkeys(field.name for field in fields(Speed))
        return own | (asdict(self.speed) if self.speed is not None else unknown)


class LossWatch:
    """Says when the loss rises, which ends in NaN or in a model that has forgotten what it knew.

    It compares a mean over the last lines with the smallest so far; that of a batch alone goes up and down.
    """

    def __init__(self) -> None:
        self._mean: float | None = None
        self._least, self._at = math.inf, 0

    def add(self, line: Line, tell: Callable[[str], None]) -> None:
        """Tells of each rise of the mean by more than half and 0.1, in a sentence."""
        self._mean = line.loss if self._mean is None else 0.6 * self._mean + 0.4 * line.loss
        if self._mean > 1.5 * self._least + 0.1:
            tell(
                f"the loss rises, from about {self._least:.3g} at step {self._at} to {self._mean:.3g} at step "
                f"{line.step}, with gradients of norm {line.gradient_norm:.3g}: if it goes on, stop the run and lower "
                f"--recipe.schedule.peak (the rate is {line.learning_rate:.3g} now), lengthen "
                "--recipe.schedule.warmup, or set --recipe.optimizer.clip-norm 1"
            )
        elif self._mean >= self._least:
            return
        self._least, self._at = self._mean, line.step


class FiniteGuard:
    """Stops the run at the first metric that is not finite.

    A step's metrics are read two steps later, when the devices have computed them.

    Args:
        workdir: gets the batch of the failed step.
        on_metrics: called with each step's number, from 1, its metrics, and the images skipped up to it.
        name: of the work directory, for messages; ``None``: its path.
    """

    def __init__(
        self, workdir: Path, on_metrics: Callable[[int, Mapping[str, float], int], None], name: str | None = None
    ) -> None:
        self._workdir, self._on_metrics, self._name = workdir, on_metrics, name or str(workdir)
        self._pending: deque[tuple[int, Batch, Mapping[str, jax.Array], int]] = deque()

    def add(self, step: int, batch: Batch, metrics: Mapping[str, jax.Array], skipped: int) -> None:
        """Takes the metrics of the step that was just dispatched, and reads those of an earlier one.

        Args:
            skipped: images up to this step that could not be read.

        Raises:
            VitportError: if an earlier loss or gradient is not finite.
        """
        self._pending.append((step, batch, metrics, skipped))
        while len(self._pending) > _LAG:
            self._check_next()

    def drain(self) -> None:
        """Reads the metrics of all steps so far; raises as :meth:`add` does."""
        while self._pending:
            self._check_next()

    def _check_next(self) -> None:
        step, batch, metrics, skipped = self._pending.popleft()
        values = {name: float(np.asarray(value.addressable_shards[0].data)) for name, value in metrics.items()}
        if all(math.isfinite(value) for value in values.values()):
            self._on_metrics(step, values, skipped)
            return
        path = self._workdir / f"failed_step_{step}.npz"
        try:
            with writing(path):
                np.savez(path, **batch)  # type: ignore[arg-type]
            where = f"is in {self._name}/{path.name}"
        except UnwrittenError:
            where = f"could not be written to {self._name}/{path.name}"
        found = ", ".join(f"{name} {value}" for name, value in values.items())
        raise VitportError(
            f"Step {step} gave {found}, and expected were finite numbers; its batch {where}. Lower "
            "--recipe.schedule.peak, set --recipe.optimizer.clip-norm or check the images, and run again from the last "
            "checkpoint."
        )


class Throughput:
    """Measures the speed since the last line; evaluations and checkpoints do not count."""

    def __init__(self, model: Config, batch: int, frozen: tuple[str, ...] = ()) -> None:
        self._flops, self._batch = step_flops(model, batch, frozen), batch
        kinds = [peak_flops(device.device_kind) for device in jax.devices()]
        self._peak = None if None in kinds else sum(kind or 0 for kind in kinds)
        self.start()

    def start(self) -> None:
        """Starts a new measurement."""
        self._since, self._steps, self._waited = time.perf_counter(), 0, 0.0

    def add_wait(self, seconds: float) -> None:
        """Counts time that the loop waited for images."""
        self._waited += seconds

    def add_step(self) -> None:
        """Counts a finished step."""
        self._steps += 1

    def measure(self, left: int) -> Speed | None:
        """The speed since the last line, ``None`` if no step was finished; a new measurement starts.

        Args:
            left: steps to the end of the run.
        """
        seconds, steps = time.perf_counter() - self._since, self._steps
        waited = self._waited / seconds
        self.start()
        if not steps:
            return None
        flops = steps * self._flops / seconds
        return Speed(
            images_per_second=steps * self._batch / seconds,
            teraflops=flops / 1e12,
            mfu=None if self._peak is None else flops / self._peak,
            data_wait=min(waited, 1.0),
            seconds_left=left * seconds / steps,
        )
