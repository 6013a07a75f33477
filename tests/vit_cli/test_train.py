"""`vitport train` in this process: what it writes, says and refuses."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import conversion
from tests.simulated import QUICK
from tests.vit_cli.training import arguments, environment, log, weights
from tests.vit_jax.training.data.folders import image_folder
from vit_cli.main import main
from vit_jax.training.data import open_source

LENGTH = ("--steps", "4", "--keep.every", "2", "--log-every", "2")


def _train(workdir: Path, *options: str) -> int:
    return main(arguments(workdir, *options))


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("train") / "run"
    assert _train(workdir, *LENGTH, "--profile", "2", "1") == 0
    return workdir


def test_a_run_leaves_configuration_versions_log_charts_and_a_trace(finished) -> None:
    config = json.loads((finished / "config.json").read_text())
    assert (config["model"]["name"], config["steps"], config["recipe"]["ema"]) == ("vit_tiny_patch16_224", 4, 0.9)
    versions = json.loads((finished / "versions.json").read_text())
    assert versions["jax"].count(".") >= 2
    assert (versions["program"]["remat"], versions["program"]["scan"]) == ("none", False)  # chosen
    assert [line["step"] for line in log(finished)] == [2, 4]
    assert [line["step"] for line in log(finished, "validation")] == [2, 4]
    assert all(line["loss"] > 0 and 0 <= line["data_wait"] <= 1 for line in log(finished))
    for name in ("curves.png", "confusion.png"):
        with Image.open(finished / name) as chart:
            assert chart.width > 300
    assert list((finished / "profile").rglob("*.xplane.pb"))
    assert list((finished / "tensorboard").glob("events*"))


@pytest.mark.parametrize("key", ["params", "ema"])
def test_every_checkpoint_is_exported_to_every_format_that_holds_the_model(key, finished, tmp_path) -> None:
    """Oracle: the work directory read by conversion itself, tensor by tensor."""
    for to in ("timm", "huggingface-vit", "google"):
        out = tmp_path / (f"{to}.npz" if to == "google" else f"{to}.safetensors" if to == "timm" else to)
        extra = ["--activation", "tanh"] if to == "google" else []
        assert main(["convert", str(finished), str(out), "--to", to, "--weights-key", key, *extra]) == 0
        model = conversion.load(finished).config
        table = conversion.load(out, model=model).params
        for name, array in weights(finished, key).items():
            np.testing.assert_array_equal(np.asarray(table[name]), array)
    assert np.abs(weights(finished, "ema")["head.weight"] - weights(finished)["head.weight"]).max() > 0


def test_an_export_names_its_classes_and_says_which_weights_it_is(finished, tmp_path, capsys) -> None:
    assert main(["convert", str(finished), str(tmp_path / "out.safetensors"), "--to", "timm"]) == 0
    assert "the weights ema of the checkpoint of step 4; params is there too" in capsys.readouterr().out
    assert conversion.load(tmp_path / "out.safetensors").labels == tuple("0123456789")


def test_evaluate_finds_what_the_run_found(finished, capsys) -> None:
    assert main(["evaluate", str(finished), "--data", "digits", "--per-class", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    last = log(finished, "validation")[-1]
    assert found["images"] == 360
    for name in ("accuracy", "accuracy_top5", "loss", "calibration_error"):
        assert found[name] == pytest.approx(last[name], abs=1e-6)
    assert set(found["per_class"]) == set("0123456789")
    assert main(["evaluate", str(finished), "--data", "digits", "--knn", "5", "--linear-probe", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["accuracy_of_5_neighbours"] > 0.3  # ten classes
    assert found["accuracy_of_linear_probe"] > 0.3


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--workers", "-1"), "--workers must be 0 processes or more; got -1"),
        (("--knn", "0"), "--knn must be from 1 to 1437, the number of training images; got 0"),
        (("--knn", "1438"), "--knn must be from 1 to 1437, the number of training images; got 1438"),
        (("--knn", "5", "--per-class"), "--per-class, --real and --predictions are of the head"),
        (("--linear-probe", "--real", "real.json"), "--per-class, --real and --predictions are of the head"),
        (("--real", "/nowhere/real.json"), "cannot be read as ReaL labels"),
    ],
)
def test_what_cannot_be_evaluated_is_one_sentence_before_anything_runs(
    options, sentence, finished, capsys, monkeypatch
) -> None:
    for module in ("evaluate", "features"):
        monkeypatch.setattr(f"vit_jax.training.evaluation.{module}.compile_inference", None)
    assert main(["evaluate", str(finished), "--data", "digits", *options]) == 2
    told = capsys.readouterr().err
    assert sentence in told
    assert len(told.splitlines()) == 1


def test_images_that_cannot_be_read_have_no_features_and_are_named(finished, tmp_path, capsys) -> None:
    folder = image_folder(tmp_path / "train").parent
    image_folder(folder / "val")
    damaged = [next((folder / part).rglob("*.png")) for part in ("train", "val")]
    for path in damaged:
        path.write_bytes(b"")
    assert main(["evaluate", str(finished), "--data", str(folder), "--knn", "3"]) == 0
    told = capsys.readouterr().out
    assert all(f"skipped {path}, which is " in told for path in damaged)
    assert re.search(r"training_images +23\n", told)


def test_a_dry_run_prints_costs_and_shardings_and_writes_nothing(tmp_path, capsys) -> None:
    assert _train(tmp_path / "run", *LENGTH, "--dry-run") == 0
    told = capsys.readouterr().out
    parameters = int(re.search(r"^parameters: ([\d,]+)", told, re.MULTILINE)[1].replace(",", ""))  # type: ignore[index]
    assert f"memory per device, optimizer: {8 * parameters / 1e3:,.1f} kB" in told  # two moments of four bytes
    assert re.search(r"as compiled", told)
    assert re.search(r"^blocks/0/attn/qkv/kernel +16x48 +whole", told, re.MULTILINE)
    assert not (tmp_path / "run").exists()


def test_validation_images_that_cannot_be_read_are_named_and_a_trace_ends_with_the_run(tmp_path, capsys) -> None:
    """The trace is asked for beyond the end, and then, of the start that goes on, from before its first step."""
    folder = image_folder(tmp_path / "images" / "train").parent
    image_folder(folder / "val")
    damaged = next((folder / "val").rglob("*.png"))
    damaged.write_bytes(b"")
    options = ("--data", str(folder), "--batch", "8", "--keep.every", "2")
    for steps, profile, traced in (("2", ("1", "9"), "steps 2 to 2"), ("4", ("1", "2"), "steps 3 to 3")):
        assert _train(tmp_path / "run", *options, "--steps", steps, "--profile", *profile) == 0
        told = capsys.readouterr().out
        assert f"skipped {damaged}, which is " in told
        assert f"asks for steps that this start does not take: it traces {traced}." in told
        traces = list((tmp_path / "run" / "profile").rglob("*.xplane.pb"))
        assert len(traces) == int(steps) / 2


def test_steps_on_the_command_line_win_over_a_presets_epochs(tmp_path, capsys) -> None:
    options = ["train", "--preset", "digits", "--workdir", str(tmp_path / "run"), "--dry-run", "--steps", "7"]
    options += ["--recipe.schedule.warmup", "1"]
    assert main(options) == 0
    assert "run: 7 steps of " in capsys.readouterr().out
    assert main([*options, "--epochs", "1"]) == 2
    assert "steps=7 and epochs=1.0 both set the run's length" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("how", "told"),
    [("--parallel pmap", True), pytest.param("--parallel pmap --scan", False, marks=pytest.mark.slow), ("", False)],
)
def test_where_remat_saves_nothing_on_a_cpu_it_is_told(how, told, tmp_path, capsys) -> None:
    """Where it saves something: tests/vit_jax/training/test_remat.py."""
    assert _train(tmp_path / "run", "--steps", "2", "--remat", "full", *how.split(), "--dry-run") == 0
    assert ("remat=full saves no memory on a CPU with parallel=pmap" in capsys.readouterr().out) == told


def test_a_run_that_overflows_stops_with_the_batch_of_that_step(tmp_path, capsys) -> None:
    status = _train(
        tmp_path / "run", "--steps", "6", "--keep.every", "1", "--recipe.schedule.peak", "1e30",
        "--recipe.schedule.warmup", "2", "--recipe.optimizer.weight-decay", "0",
    )  # fmt: skip
    assert status == 2
    told = capsys.readouterr().err
    step = int(re.search(r"Step (\d+) gave", told)[1])  # type: ignore[index]
    with np.load(tmp_path / "run" / f"failed_step_{step}.npz") as batch:
        assert batch["image"].shape == (32, 8, 8, 1)
        assert batch["label"].shape == (32,)
    kept = {int(path.name) for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert kept
    assert max(kept) < step
    assert all(np.isfinite(array).all() for array in weights(tmp_path / "run").values())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--data", "/nowhere"), "/nowhere does not exist"),
        (("--batch", "30", "--recipe.accumulation", "4"), "does not divide into 4 parts"),
        (("--mesh", "data=7"), "needs 7 devices"),
        (("--mesh", "7"), "--mesh 7 cannot be read"),
        (("--mesh", "data=1,data=1"), "give each axis its number of devices once"),
        (("--profile", "4", "1"), "--profile 4 1 lies outside the run's 4 steps"),
        (("--profile", "0", "0"), "--profile 0 0 lies outside"),
        (("--compilation-cache", __file__), "cannot be made a folder"),
        (("--processes.count", "2"), "belong together: give all three, or none"),
        (("--recipe.schedule.warmup", "-1"), "schedule.warmup must be 0 steps or more; got -1"),
        (("--recipe.schedule.warmup", "9"), "longer than the 4 steps"),
        (("--model", "vit_tinny"), "did you mean vit_tiny"),
        (("--model.in-channels", "2"), "takes images of 2 channels"),
        (("--attention", "cudnn"), "the device is a cpu, precision is float32"),
        (("--attention", "flash"), "attention=flash needs a TPU"),
        (("--preset", "resnet"), "No preset is named"),
        (("--config", "/nowhere.yaml"), "cannot be read"),
        (("--model.patch-size", "9"), "its height 8 is below patch_size=9"),
        (("--epochs", "3"), "both set the run's length"),
        (("--model.weights", "/nowhere"), "starts from random values"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(options, sentence, tmp_path, capsys) -> None:
    assert _train(tmp_path / "run", *LENGTH, *options) == 2
    told = capsys.readouterr().err
    assert sentence in told
    assert len(told.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_work_directory_that_cannot_be_made_is_one_sentence(tmp_path, capsys) -> None:
    (tmp_path / "file").write_text("")
    assert _train(tmp_path / "file" / "run", *LENGTH) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_a_disk_that_fills_at_a_checkpoint_is_one_sentence_and_a_later_start_goes_on(tmp_path) -> None:
    """A limit on the size of a process's files stands for the disk; only a checkpoint's are as large."""
    code = (
        "import resource, sys\nfrom vit_cli.main import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))\nsys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, *arguments(tmp_path / "run", *LENGTH, "--model.embed-dim", "64")]
    done = subprocess.run(
        command,
        env=environment(1, QUICK) | {"JAX_ENABLE_COMPILATION_CACHE": "false"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "could not be written" in done.stderr
    assert "(File too large): free disk space and run again" in done.stderr
    assert "could not be saved at the second attempt either" in done.stderr
    assert len(done.stderr.splitlines()) == 1  # neither a traceback nor a warning
    assert main(["train", "--workdir", str(tmp_path / "run")]) == 0
    assert {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()} == {"2", "4"}


def test_a_yaml_file_gives_defaults_that_options_change(tmp_path) -> None:
    (tmp_path / "run.yaml").write_text("recipe:\n  optimizer: {name: sgd, beta1: 0.5}\nseed: 5\n")
    assert _train(tmp_path / "run", "--config", str(tmp_path / "run.yaml"), "--steps", "3", "--seed", "6") == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["recipe"]["optimizer"]["name"], config["recipe"]["optimizer"]["beta1"], config["seed"]) == (
        "sgd",
        0.5,
        6,
    )


def test_predictions_are_written_as_a_table(finished, tmp_path, capsys) -> None:
    """Oracle: the accuracy that evaluate prints, and the labels of the data set."""
    import csv

    out = tmp_path / "out.csv"
    assert main(["evaluate", str(finished), "--data", "digits", "--json", "--predictions", str(out)]) == 0
    accuracy = json.loads(capsys.readouterr().out)["accuracy"]
    rows = list(csv.DictReader(out.open()))
    assert list(rows[0]) == ["image", "label", "predicted", "probability"]
    source = open_source("digits", "validation")
    assert source is not None
    assert [(row["image"], int(row["label"])) for row in rows] == [
        (r.name, r.label) for r in map(source.__getitem__, range(360))
    ]
    assert np.mean([row["label"] == row["predicted"] for row in rows]) == pytest.approx(accuracy)
    assert all(0.1 <= float(row["probability"]) <= 1 for row in rows)
    assert main(["evaluate", str(finished), "--data", "digits", "--predictions", str(tmp_path / "no" / "out.csv")]) == 2
    assert f"cannot be written: the folder {tmp_path / 'no'} does not exist" in capsys.readouterr().err


def test_fine_tuning_begins_with_the_weights(finished, tmp_path) -> None:
    """A learning rate of next to nothing changes next to nothing. Oracle: the weights that were given."""
    options = ("--data", "digits", "--weights", str(finished), "--data.augment.crop", "none", "--steps", "1")
    tiny = ("--recipe.schedule.peak", "1e-12", "--batch", "32", "--data.augment.flip", "0")
    assert main(["train", "--workdir", str(tmp_path / "run"), *options, *tiny]) == 0
    given, tuned = weights(finished, "ema"), weights(tmp_path / "run")
    assert max(float(np.abs(tuned[name] - given[name]).max()) for name in given) < 1e-9


def test_a_backbone_gets_the_head_of_its_familys_classifier(tmp_path, capsys) -> None:
    """Oracle: transformers' Dinov2ForImageClassification loads what was trained, with no key missing."""
    import transformers

    sizes = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 3, "image_size": 8, "patch_size": 4}
    dino = transformers.Dinov2Model(transformers.Dinov2Config(**sizes, mlp_ratio=2, num_channels=1))
    dino.save_pretrained(tmp_path / "dino")
    options = ("--data", "digits", "--weights", str(tmp_path / "dino"), "--steps", "1", "--batch", "32")
    assert main(["train", "--workdir", str(tmp_path / "run"), *options, "--data.augment.crop", "none"]) == 0
    assert "changed: pool token_avg in place of token" in capsys.readouterr().out
    assert main(["convert", str(tmp_path / "run"), str(tmp_path / "out"), "--to", "huggingface", "--verify"]) == 0
    kind = transformers.Dinov2ForImageClassification
    _, loading = kind.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
