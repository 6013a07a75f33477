"""`vitport train --log`: what the trackers hold is what metrics.jsonl holds. Oracles: the trackers' own readers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from conversion.store import Objects
from conversion.store.fetch import copy
from tests.stores import running
from tests.vit_cli.training import arguments
from vit_cli.main import main
from vit_jax.training.recipe.config import TrainConfig
from vit_jax.training.run import trackers
from vit_jax.training.run.log import Log, read_lines
from vit_spec import VitportError

SHORT = ("--steps", "4", "--log-every", "2", "--keep.every", "2")


@pytest.mark.trackers
def test_mlflow_gets_every_line_also_of_a_run_that_goes_on(tmp_path, monkeypatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run = tmp_path / "run"
    assert main(arguments(run, *SHORT, "--log", "mlflow")) == 0
    assert main(["train", "--workdir", str(run), "--steps", "6"]) == 0
    client = mlflow.MlflowClient((run / "mlruns").as_uri())
    (experiment,) = (one for one in client.search_experiments() if one.name == "vitport")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.status == "FINISHED"
    assert found.data.params["recipe.optimizer.name"] == "adamw"
    for of, name in (("train", "loss"), ("validation", "accuracy")):
        logged = {one.step: one.value for one in client.get_metric_history(found.info.run_id, f"{of}/{name}")}
        assert logged == {line["step"]: line[name] for line in read_lines(run) if line["of"] == of}
        assert max(logged) == 6


@pytest.mark.trackers
def test_mlflow_goes_on_with_a_run_in_a_bucket(tmp_path, monkeypatch) -> None:
    """Its own folder lies in the bucket too, and is fetched when the run goes on."""
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with running("gs", monkeypatch, tmp_path / "cache") as store:
        assert main(arguments(f"{store.address}/digits", *SHORT, "--log", "mlflow")) == 0
        assert main(["train", "--workdir", f"{store.address}/digits", "--steps", "6"]) == 0
        objects = Objects(f"{store.address}/digits")
        copy(objects, [name for name in objects.names() if name.startswith("mlruns/")], tmp_path)
    client = mlflow.MlflowClient((tmp_path / "mlruns").as_uri())
    (experiment,) = (one for one in client.search_experiments() if one.name == "vitport")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.run_name == "digits"
    assert max(one.step for one in client.get_metric_history(found.info.run_id, "train/loss")) == 6


@pytest.mark.trackers
def test_tensorboard_reads_a_run_in_a_bucket(tmp_path, monkeypatch) -> None:
    """By gcsfs, which it asks for such addresses."""
    pytest.importorskip("gcsfs")
    board = pytest.importorskip("tensorboard.backend.event_processing.plugin_event_multiplexer")
    numbers = pytest.importorskip("tensorboard.util.tensor_util")
    with running("gs", monkeypatch, tmp_path / "cache") as store:
        assert main(arguments(f"{store.address}/digits", *SHORT)) == 0
        copy(Objects(f"{store.address}/digits"), ["metrics.jsonl"], tmp_path)
        found = board.EventMultiplexer().AddRunsFromDirectory(f"{store.address}/digits")
        found.Reload()
        (run,) = found.Runs()
        for of, name in (("train", "loss"), ("validation", "accuracy")):
            events = found.Tensors(run, f"{of}/{name}")
            told = {one.step: float(numbers.make_ndarray(one.tensor_proto)) for one in events}
            logged = {line["step"]: line[name] for line in read_lines(tmp_path) if line["of"] == of}
            assert told == pytest.approx(logged)
            assert len(told) == 2


@pytest.mark.trackers
def test_wandb_gets_every_line_offline(tmp_path, monkeypatch) -> None:
    pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2  # pyright: ignore[reportMissingImports]

    monkeypatch.setenv("WANDB_MODE", "offline")
    run = tmp_path / "run"
    assert main(arguments(run, *SHORT, "--log", "wandb")) == 0
    (file,) = run.glob("wandb/offline-run-*/*.wandb")
    assert json.loads((run / "trackers.json").read_text())["wandb"] in file.name
    logged = {}
    for data in _records(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.HasField("history"):
            values = {
                item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item
            }
            logged |= {(values["_step"], name): value for name, value in values.items()}
    for line in read_lines(run):
        assert logged[line["step"], f"{line['of']}/loss"] == line["loss"]


def _records(content: bytes) -> Iterator[bytes]:
    """Of W&B's offline file: after 7 bytes, LevelDB's log format, records cut at blocks of 32 KiB (log_format.md)."""
    assert content[:4] == b":W&B"
    at, record = 7, b""
    while at + 7 <= len(content):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        size, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        record += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


class _Failing:
    id = "one"

    def __init__(self, *given: object) -> None:
        pass

    def write(self, step: int, values: object) -> None:
        raise ConnectionError("the network is down")

    def close(self) -> None:
        raise AssertionError("it was given up")


def test_a_tracker_that_fails_is_told_once_and_the_log_goes_on(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(trackers._KINDS, "wandb", _Failing)
    said: list[str] = []
    given = trackers.Trackers(TrainConfig(log=("wandb",)), tmp_path, said.append)
    with closing(Log(tmp_path, 0, trackers=given)) as log:
        log.evaluation(1, {"accuracy": 0.5})
        log.evaluation(2, {"accuracy": 0.75})
    assert [sentence.partition(":")[0] for sentence in said] == ["wandb fails (the network is down)"]
    assert [line["accuracy"] for line in read_lines(tmp_path)] == [0.5, 0.75]


def test_a_tracker_that_is_not_installed_is_one_sentence(tmp_path, monkeypatch) -> None:
    def absent(*given: object) -> trackers.Tracker:
        raise ImportError("No module named 'wandb'")

    monkeypatch.setitem(trackers._KINDS, "wandb", absent)
    with pytest.raises(VitportError, match=r"pip install 'vitport\[wandb\]'"):
        trackers.Trackers(TrainConfig(log=("wandb",)), Path(tmp_path), print)
