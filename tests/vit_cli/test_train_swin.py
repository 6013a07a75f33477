"""`vitport train` and what follows a run, of a tiny Swin Transformer. Oracles: the run that nobody disturbed, the files
read by conversion itself, and the other framework."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

import conversion
import vit_cli
import vit_jax
import vit_torch
from conversion.formats import FORMATS
from tests.vit_cli.training import LENGTH, SMALL_SWIN, check_killed, log, same_bits, train, weights
from vit_cli.main import main
from vit_spec import VitportError

pytest.importorskip("sklearn")

WEIGHTS = Path(vit_cli.__file__).parent / "assets" / "digits_swin.safetensors"


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Callable[[int], Path]:
    """From a version of Swin to the work directory of a run of it that nobody disturbed."""

    @cache
    def trained(version: int) -> Path:
        workdir = tmp_path_factory.mktemp("swin") / "run"
        train(workdir, *LENGTH, small=SMALL_SWIN[version])
        return workdir

    return trained


@pytest.mark.slow
@pytest.mark.parametrize(("version", "options"), [(1, ()), (1, ("--scan",)), (2, ("--scan",))])
def test_killed_three_times_a_run_ends_with_the_same_bits(version, options, finished, tmp_path) -> None:
    """Scanned pairs of blocks round otherwise: beside a scanned run of its own."""
    straight = tmp_path / "straight"
    if options:
        train(straight, *LENGTH, *options, small=SMALL_SWIN[version])
    else:
        straight = finished(version)
    check_killed(tmp_path / "run", straight, (*LENGTH, *options), seed=1, kills=3, small=SMALL_SWIN[version])


@pytest.mark.slow
@pytest.mark.parametrize("key", ["params", "ema"])
@pytest.mark.parametrize("version", [1, 2])
def test_a_run_is_exported_to_every_format_that_can_hold_it(version, key, finished, tmp_path) -> None:
    """Of all formats of the family; what one cannot hold it says in a sentence. Oracle: the weights of the run, bit for
    bit, and the other framework on them."""
    run = finished(version)
    expected, config, refused = weights(run, key), conversion.load(run).config, {}
    images = np.random.default_rng(0).standard_normal((3, 16, 16, 1)).astype(np.float32)
    model = vit_jax.create_model(weights=conversion.load(run, weights_key=key))
    model.eval()
    right = np.asarray(nnx.jit(model)(jnp.asarray(images)))
    written = []
    for name in (name for name, found in FORMATS.items() if found.family == "swin"):
        out = tmp_path / (name + (".pth" if "torchvision" in name else ""))
        try:
            conversion.convert(str(run), str(out), to=name, weights_key=key)
        except VitportError as error:
            refused[name] = str(error)
            continue
        found = conversion.load(out, model=config)
        assert same_bits({each: np.asarray(found.params[each]) for each in expected}, expected), name
        with torch.no_grad():
            logits = vit_torch.create_model(weights=found).eval()(torch.tensor(images).permute(0, 3, 1, 2)).numpy()
        np.testing.assert_allclose(logits, right, rtol=0, atol=1e-5, err_msg=name)
        written.append(name)
    own = {1: "huggingface-swin", 2: "huggingface-swinv2"}[version]
    assert {"timm-swin", "flax-swin", own} <= set(written), refused
    assert all(len(why.splitlines()) == 1 for why in refused.values())


@pytest.mark.slow
@pytest.mark.parametrize("version", [1, 2])
def test_a_run_that_is_evaluated_gives_what_it_logged(version, finished, capsys) -> None:
    run = finished(version)
    assert main(["evaluate", str(run), "--data", "digits", "--json"]) == 0
    found, last = json.loads(capsys.readouterr().out), log(run, "validation")[-1]
    for name in ("accuracy", "loss"):
        assert found[name] == pytest.approx(last[name], abs=1e-6)


@pytest.mark.slow
def test_frozen_features_serve_neighbours_and_a_linear_probe(capsys) -> None:
    """Oracle: scikit-learn's labels."""
    assert main(["evaluate", str(WEIGHTS), "--data", "digits", "--knn", "5", "--linear-probe", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["accuracy_of_5_neighbours"] >= 0.96
    assert found["accuracy_of_linear_probe"] >= 0.96


def test_the_carried_weights_are_the_presets_and_evaluate_as_promised(capsys) -> None:
    """Oracle: scikit-learn's labels."""
    from vit_jax.training.recipe.presets import get_preset
    from vit_spec import get_model

    assert main(["evaluate", str(WEIGHTS), "--data", "digits", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] >= 0.96
    options = get_preset("swin_digits").config.model
    told = ("image_size", "patch_size", "in_channels", "embed_dim", "depths", "num_heads", "window_sizes",
            "drop_path_rate")  # fmt: skip
    assert options.name is not None
    config = get_model(options.name).config.replace(
        pretrained_window_sizes=((0, 0),) * 2, num_classes=10, **{name: getattr(options, name) for name in told}
    )
    assert conversion.load(WEIGHTS).config == config


def test_rollout_is_refused_in_one_sentence(tmp_path, capsys) -> None:
    from PIL import Image

    Image.new("L", (16, 16)).save(tmp_path / "digit.png")
    paths = [str(tmp_path / name) for name in ("digit.png", "out.png")]
    assert main(["rollout", *paths, "--weights", str(WEIGHTS)]) == 2
    told = capsys.readouterr().err
    assert "have no attention rollout: it needs attention among all tokens" in told
    assert len(told.splitlines()) == 1
    assert not (tmp_path / "out.png").exists()
