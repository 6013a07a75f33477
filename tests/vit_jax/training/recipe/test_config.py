"""Configurations: from the command line's types to files and back, and what makes no run."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest

import vit_cli
from vit_jax import training
from vit_jax.training.devices.processes import detect_launcher
from vit_jax.training.recipe.config import (
    CheckpointOptions,
    ModelOptions,
    Processes,
    Teacher,
    TrainConfig,
    config_from_dict,
    read_config,
)
from vit_jax.training.recipe.data import Augmentation, Data
from vit_jax.training.recipe.presets import PRESETS, get_preset
from vit_jax.training.run.setup import set_up
from vit_spec import VitportError

pytestmark = pytest.mark.jax_alone

SMALL = ModelOptions(
    "vit_tiny_patch16_224", image_size=8, patch_size=4, in_channels=1, embed_dim=16, depth=1, num_heads=2
)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_comes_back_from_its_json(name, tmp_path) -> None:
    config = PRESETS[name].config
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config.to_dict()))
    assert read_config(path) == config


def test_a_configuration_of_an_earlier_version_is_read_whole() -> None:
    """Oracle: the file, as vitport wrote it before its classes were renamed; work directories hold such files."""
    path = Path(__file__).parent / "earlier_config.json"
    config = read_config(path)
    written = json.loads(path.read_text())
    assert _options_of(written, config.to_dict()) == written
    assert (config.keep.every, config.data.augment.randaugment.layers, config.mesh.data) == (1000, 2, -1)


def _options_of(written: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """Of today's options those that an earlier version had too."""
    return {
        name: _options_of(value, now[name]) if isinstance(value, dict) else now[name] for name, value in written.items()
    }


def test_the_earlier_name_of_explicit_attention_is_read(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(TrainConfig().to_dict() | {"attention": "written"}))
    assert read_config(path) == TrainConfig(attention="explicit")


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_can_begin_on_some_data(name) -> None:
    """All but the data, which are the digits here, scaled to the preset's size: model, schedule, optimizer, engine."""
    preset = PRESETS[name]
    config = dataclasses.replace(preset.config, data=dataclasses.replace(preset.config.data, path="digits"))
    if config.model.name is None:  # it is for weights
        weights = Path(vit_cli.__file__).parent / "assets" / "digits_vit.safetensors"
        config = dataclasses.replace(config, model=ModelOptions(weights=str(weights)))
    elif config.epochs is not None:  # as long as the warm-up wants it
        config = dataclasses.replace(config, epochs=None, steps=config.recipe.schedule.warmup + 10)
    setup = set_up(config)
    assert setup.model.num_classes == 10
    assert setup.shapes.params


def test_big_visions_preset_is_big_visions_model() -> None:
    """Oracle: its configuration vit_s16_i1k.py: gap, rep_size, sincos2d, Flax's GELU; no other parameter is there."""
    preset = PRESETS["big_vision_s16_90ep"]
    config = dataclasses.replace(preset.config, data=Data("digits"), epochs=None, steps=10_001)
    setup = set_up(config)
    model = setup.model
    assert (model.pool, model.class_token, model.representation_size, model.activation) == (
        "avg",
        False,
        384,
        "gelu_tanh",
    )
    assert setup.shapes.params["pos_embed"].shape == (1, 196, 384)
    assert setup.preprocessing.crop_fraction == 0.875


def test_yaml_says_what_differs_from_the_defaults(tmp_path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("batch: 32\nsteps: 5\nmodel: {name: vit_tiny_patch16_224}\nrecipe:\n  optimizer: {name: lamb}\n")
    config = read_config(path)
    expected = TrainConfig(
        ModelOptions("vit_tiny_patch16_224"), recipe=training.Recipe(training.Optimizer("lamb")), batch=32, steps=5
    )
    assert config == expected


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"bach": 3}, "has the unknown option bach: choose one of model, "),
        ({"recipe": {"optimizer": {"lr": 3}}}, r"has the unknown option recipe\.optimizer\.lr"),
        ({"recipe": 3}, "gives recipe the value 3: expected a mapping with optimizer, "),
        ({"batch": "many"}, "gives batch the value 'many'"),
        ({"recipe": {"optimizer": {"name": "adam"}}}, "gives recipe.optimizer.name the value 'adam'"),
        ({"steps": 3, "epochs": 1}, "both set the run's length"),
    ],
)
def test_a_wrong_file_is_one_sentence(values, sentence) -> None:
    with pytest.raises(VitportError, match=sentence):
        config_from_dict(values, "run.yaml")


@pytest.mark.parametrize("text", ["{", "- 1", "\x00"])
def test_a_file_that_is_no_configuration_is_one_sentence(text, tmp_path) -> None:
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(VitportError, match=r"run\.yaml (is not valid YAML|holds no names and values)"):
        read_config(tmp_path / "run.yaml")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"batch": 0}, "batch must be 1 or more; got 0"),
        ({"steps": 0}, "must be above 0; got steps=0"),
        ({"seed": -1}, "seed must be a whole number from 0"),
        ({"teacher": Teacher("x")}, "needs a distillation loss"),
        ({"recipe": training.Recipe(loss=training.Loss(distillation="hard"))}, "needs a teacher"),
    ],
)
def test_what_makes_no_run_is_one_sentence(changes, sentence) -> None:
    with pytest.raises(VitportError, match=sentence):
        TrainConfig(**changes)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (TrainConfig(SMALL), "give steps or epochs"),
        (TrainConfig(steps=1), "The run has no model"),
        (TrainConfig(SMALL, steps=1, batch=9, recipe=training.Recipe(accumulation=2)), "does not divide into 2 parts"),
        (TrainConfig(SMALL, steps=1, mesh=training.MeshShape(3)), "needs 3 devices"),
        (TrainConfig(SMALL, steps=1, mesh=training.MeshShape(-1, 4)), "needs a multiple of 4 devices"),
        (TrainConfig(SMALL, steps=1, parallel="pmap", mesh=training.MeshShape(1)), "takes no mesh"),
        (TrainConfig(dataclasses.replace(SMALL, depth=2), steps=1, data=Data("/nowhere")), "does not exist"),
    ],
)
def test_what_cannot_begin_is_known_before_anything_is_compiled(config, sentence) -> None:
    with pytest.raises(VitportError, match=sentence):
        set_up(config)


def test_checkpoint_options_and_processes_refuse_what_has_no_meaning() -> None:
    with pytest.raises(VitportError, match=r"keep\.patience must be 1 or more; got 0"):
        CheckpointOptions(patience=0)
    with pytest.raises(VitportError, match=r"keep\.every must be 1 or more; got 0"):
        CheckpointOptions(every=0)
    with pytest.raises(VitportError, match="belong together"):
        Processes(count=2)
    with pytest.raises(VitportError, match=r"did you mean deit_s\?"):
        get_preset("deit-s")


def test_epochs_are_rounded_up_to_whole_steps() -> None:
    assert TrainConfig(epochs=1.5, batch=10).total_steps(101) == math.ceil(151.5 / 10)
    for endless in (TrainConfig(epochs=1e308), TrainConfig(steps=10**20), TrainConfig(epochs=1e6, batch=1)):
        with pytest.raises(VitportError, match="is more than 2147483647 steps"):
            endless.total_steps(10**6)


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, None),
        ({"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, None),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, "SLURM"),
        ({"SLURM_NTASKS": "4"}, None),  # within salloc, not srun
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "Open MPI"),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, "the TPU pod"),
        ({"TPU_WORKER_HOSTNAMES": "a"}, None),
        ({"JOB_COMPLETION_INDEX": "0", "KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "Kubernetes"),
    ],
)
def test_a_launcher_shows_that_there_are_several_processes(environment, found) -> None:
    assert detect_launcher(environment) == found


def test_the_augmentation_of_a_run_is_that_of_its_file() -> None:
    config = config_from_dict({"data": {"augment": {"crop": "none", "scale": [0.2, 0.9]}}}, "run.yaml")
    assert config.data.augment == Augmentation(crop="none", scale=(0.2, 0.9))


def test_what_is_for_a_fresh_model_and_what_contradicts_the_weights_is_one_sentence() -> None:
    digits = str(Path(__file__).parents[4] / "vit_cli" / "assets" / "digits_vit.safetensors")
    for options, sentence in (
        (ModelOptions(weights=digits, depth=2), "model.depth applies to a model that starts from random values"),
        (ModelOptions(weights=digits, pool="map"), "pool='map' cannot take the place of 'token'"),
        (ModelOptions(weights=digits, initialization="deit"), "model.initialization applies to a model"),
        (ModelOptions("vit_tiny_patch16_224", weights=digits), "depth=12, but the tensors have depth=4"),
        (dataclasses.replace(SMALL, embed_dim=18, positions="sincos2d"), "an embed_dim that is a multiple of 4"),
    ):
        with pytest.raises(VitportError, match=sentence):
            set_up(TrainConfig(options, steps=1, batch=8))


def test_the_models_head_is_that_of_the_options() -> None:
    digits = str(Path(vit_cli.__file__).parent / "assets" / "digits_vit.safetensors")
    assert set_up(TrainConfig(ModelOptions(weights=digits, pool="avg"), steps=1, batch=8)).model.pool == "avg"
    model = set_up(TrainConfig(dataclasses.replace(SMALL, pool="avg"), steps=1, batch=8)).model
    assert (model.pool, model.class_token) == ("avg", False)


def test_the_cut_of_evaluation_is_the_names_unless_the_run_says_otherwise() -> None:
    assert set_up(TrainConfig(SMALL, steps=1, batch=8)).preprocessing.crop_fraction == 0.9  # timm's for this name
    changed = dataclasses.replace(SMALL, crop_fraction=1.0, resize="squash")
    found = set_up(TrainConfig(changed, steps=1, batch=8)).preprocessing
    assert (found.crop_fraction, found.resize, found.size) == (1.0, "squash", (8, 8))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("batch: &a [x, x]\nsteps: [*a, *a]", "uses a YAML alias"),
        ("[" * 2000 + "]" * 2000, "too deeply"),
        ("{a: " * 3000, "too deeply"),
        ("batch: " + "9" * 5000, "not valid YAML"),
        ("batch: 2001-99-99", "not valid YAML"),
        ("? [a]\n: 1", "not valid YAML"),
        ("batch: 3\nsteps: 2\nbatch: 4", "has batch twice"),
        ("!!python/object/apply:os.system [ls]", "not valid YAML"),
        ("#" * (1 << 20) + "\nbatch: 3", "and at most 1,048,576 are read"),
    ],
)
def test_a_configuration_that_would_cost_more_than_its_size_is_one_sentence(text, words, tmp_path) -> None:
    """Nine levels of aliases in 410 bytes stand for a billion values; deep nesting exhausts the parser's stack."""
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(VitportError, match=words):
        read_config(tmp_path / "c.yaml")


def test_a_configuration_that_is_no_file_is_not_waited_for(tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    for path in (tmp_path / "pipe.yaml", "/dev/zero", tmp_path):
        with pytest.raises(VitportError, match="is not a regular file"):
            read_config(path)
