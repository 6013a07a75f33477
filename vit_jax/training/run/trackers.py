"""Experiment trackers that get what the log gets: Weights & Biases, and MLflow."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from vit_jax.training.recipe.config import TrackerName, TrainConfig
from vit_jax.training.run.writing import writing
from vit_spec import VitportError

_IDS = "trackers.json"
"""In the work directory: under which id each tracker has the run, so that a run that goes on continues there."""
_PROJECT = "vitport"
_MOST_PARAMETERS = 100
"""That MLflow takes in one request."""
_RUN_FOLDERS = ("artifacts", "metrics", "params", "tags")
"""Without which MLflow takes a folder for no run. In a bucket, those that hold nothing are lost."""


class Tracker(Protocol):
    """One tracker's run. A method may raise anything, which depends on its library and on the network."""

    @property
    def id(self) -> str:
        """By which it finds the run again."""
        ...

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Scalars by name."""
        ...

    def close(self) -> None:
        """Ends the run, for now."""
        ...


class Trackers:
    """All trackers of a run. One that fails is told once and gets nothing more: training goes on without it.

    Args:
        workdir: a folder on this machine, with their files.
        name: of the run.

    Raises:
        VitportError: if a tracker's package is missing, or it cannot begin.
    """

    def __init__(
        self, options: TrainConfig, workdir: Path, tell: Callable[[str], None], name: str | None = None
    ) -> None:
        self._tell = tell
        self._open: dict[str, Tracker] = {}
        path = workdir / _IDS
        ids: dict[str, str] = json.loads(path.read_text()) if path.is_file() else {}
        title = name or workdir.resolve().name
        for kind in options.log:
            try:
                self._open[kind] = _KINDS[kind](options.to_dict(), workdir, ids.get(kind), title)
            except ImportError as error:
                raise VitportError(
                    f"log={kind} needs a package that is not there ({error}): pip install 'vitport[{kind}]'."
                ) from error
            except Exception as error:
                raise VitportError(
                    f"log={kind} cannot begin ({_reason(error)}): mend that, or leave it out."
                ) from error
        if self._open:
            with writing(path):
                path.write_text(json.dumps(ids | {name: one.id for name, one in self._open.items()}) + "\n")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Scalars by name."""
        self._each(lambda one: one.write(step, values))

    def close(self) -> None:
        """Ends them."""
        self._each(lambda one: one.close())

    def _each(self, act: Callable[[Tracker], None]) -> None:
        for name, one in list(self._open.items()):
            try:
                act(one)
            except Exception as error:
                del self._open[name]
                self._tell(
                    f"{name} fails ({_reason(error)}): training goes on without it; metrics.jsonl has everything"
                )


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


class _WandB:
    """As its own environment variables say: WANDB_MODE=offline, WANDB_PROJECT and others."""

    def __init__(self, config: Mapping[str, Any], workdir: Path, known: str | None, title: str) -> None:
        import wandb  # pyright: ignore[reportMissingImports]  # an extra

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT), name=title, dir=workdir, id=known,
            resume="allow", config=dict(config),
        )  # fmt: skip

    @property
    def id(self) -> str:
        return self._run.id

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


class _MLflow:
    """At MLFLOW_TRACKING_URI, else in the work directory's ``mlruns``; the experiment is MLFLOW_EXPERIMENT_NAME."""

    def __init__(self, config: Mapping[str, Any], workdir: Path, known: str | None, title: str) -> None:
        import mlflow  # pyright: ignore[reportMissingImports]  # an extra
        from mlflow.entities import Param  # pyright: ignore[reportMissingImports]

        uri = os.environ.get("MLFLOW_TRACKING_URI")
        own = uri is None
        if uri is None:
            # Newer versions of MLflow ask for this word before they write to a folder.
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            uri = (workdir.resolve() / "mlruns").as_uri()
        self._client = mlflow.MlflowClient(uri)
        if known is not None:
            self.id = known
            for folder in (workdir / "mlruns").glob(f"*/{known}") if own else ():
                for name in _RUN_FOLDERS:
                    (folder / name).mkdir(exist_ok=True)
            self._client.update_run(known, status="RUNNING")
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
        found = self._client.get_experiment_by_name(name)
        experiment = self._client.create_experiment(name) if found is None else found.experiment_id
        self.id = self._client.create_run(experiment, run_name=title).info.run_id
        if own:  # so that a copy of the folder from a bucket is one that MLflow reads
            self._client.log_dict(self.id, dict(config), "config.json")
        every = [Param(key, str(value)[:500]) for key, value in _flat(config)]
        for at in range(0, len(every), _MOST_PARAMETERS):
            self._client.log_batch(self.id, params=every[at : at + _MOST_PARAMETERS])

    def write(self, step: int, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric  # pyright: ignore[reportMissingImports]

        now = int(time.time() * 1000)
        self._client.log_batch(self.id, [Metric(name, value, now, step) for name, value in values.items()])

    def close(self) -> None:
        self._client.set_terminated(self.id)


def _flat(values: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    result: list[tuple[str, Any]] = []
    for name, value in values.items():
        result += _flat(value, f"{before}{name}.") if isinstance(value, Mapping) else [(f"{before}{name}", value)]
    return result


_KINDS: dict[TrackerName, Callable[[Mapping[str, Any], Path, str | None, str], Tracker]] = {
    "wandb": _WandB,
    "mlflow": _MLflow,
}
