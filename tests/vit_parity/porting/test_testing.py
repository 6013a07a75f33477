"""The helpers for tests of one's own, and the command, on a pair that takes no time."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import linen

import vitport
from tests.vit_parity.porting.ports import tokens
from vit_cli.main import main
from vit_parity.capture_file import load_capture, save_capture

X = tokens(4, 6)


def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.GELU(), torch.nn.Linear(8, 3)).eval()


def port(x: jax.Array, *, approximate: bool = False) -> jax.Array:
    first, _, last = model()
    arrays = [it.detach().numpy() for it in (first.weight, first.bias, last.weight, last.bias)]
    x = vitport.tag("fc1", x @ arrays[0].T + arrays[1])
    x = vitport.tag("act", jax.nn.gelu(x, approximate=approximate))
    return vitport.tag("fc2", x @ arrays[2].T + arrays[3])


def wrong(x: jax.Array) -> jax.Array:
    return port(x, approximate=True)


def own_model() -> tuple[Any, Any]:
    return model(), X


def own_port() -> Any:
    return port


def own_wrong() -> Any:
    return wrong


def test_assert_parity_passes_what_rounding_explains() -> None:
    assert vitport.assert_parity(model(), port, X).equal


def test_assert_parity_names_layer_cause_and_report(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AssertionError, match=r"1 \(B: act\) .*\n?.*uses tanh GELU instead of GELU") as raised:
        vitport.assert_parity(model(), wrong, X)
    path = Path(str(raised.value).rpartition("Report: ")[2])
    assert path == Path("parity-reports/test_assert_parity_names_layer_cause_and_report.html")
    assert "uses tanh GELU" in path.read_text()


def test_a_golden_file_is_written_once_and_holds_the_model_to_it(tmp_path, monkeypatch) -> None:
    path = tmp_path / "golden" / "port.npz"
    vitport.assert_golden(port, X, path)
    first = path.read_bytes()
    vitport.assert_golden(port, X, path)
    assert path.read_bytes() == first
    assert load_capture(path).facts["framework"].startswith("jax ")
    with pytest.raises(AssertionError, match=r"(?s)act is the first stage apart.*Then: .*Now: .*VITPORT_UPDATE_GOLDEN"):
        vitport.assert_golden(wrong, X, path)
    with pytest.raises(vitport.VitportError, match="made from other inputs"):
        vitport.assert_golden(port, 2 * X, path)
    monkeypatch.setenv("VITPORT_UPDATE_GOLDEN", "1")
    vitport.assert_golden(wrong, X, path)
    assert path.read_bytes() != first


def test_captures_of_both_sides_compare_without_their_code(tmp_path) -> None:
    save_capture(vitport.capture(model(), X), tmp_path / "a.npz")
    kept = vitport.capture(jax.jit(port), jnp.asarray(X), to=tmp_path / "b.npz")
    np.testing.assert_allclose(kept.activations["output"], model()(torch.tensor(X)).detach(), rtol=1e-5, atol=1e-6)
    assert vitport.compare(load_capture(tmp_path / "a.npz"), load_capture(tmp_path / "b.npz")).equal


def test_files_of_captures_are_compared_with_each_other_and_with_models(tmp_path) -> None:
    """Also where images differ in their layout, and a stage is wrong from the first on: names tell which it is."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(OrderedDict(conv=torch.nn.Conv2d(3, 4, 3, 2, 1), act=torch.nn.ReLU())).eval()
    kernel, bias = (it.detach().numpy() for it in net[0].parameters())

    def mine(padding: Any) -> Any:
        class Net(linen.Module):
            @linen.compact
            def __call__(self, x: jax.Array) -> jax.Array:
                return jax.nn.relu(linen.Conv(4, (3, 3), (2, 2), padding=padding, name="conv")(x))

        return Net(), {"params": {"conv": {"kernel": jnp.asarray(kernel.transpose(2, 3, 1, 0)), "bias": bias}}}

    images = tokens(2, 3, 8, 12)
    vitport.capture(net, images, to=tmp_path / "a.npz")
    for padding, equal in ((1, True), ("SAME", False)):
        vitport.capture(mine(padding), np.moveaxis(images, 1, -1), to=tmp_path / "b.npz")
        assert vitport.compare(tmp_path / "a.npz", tmp_path / "b.npz").equal is equal
        found = vitport.compare(tmp_path / "a.npz", mine(padding), np.moveaxis(images, 1, -1))
        assert found.equal is equal
        assert [fault.stage for fault in found.faults] == ([] if equal else ["conv"])
    with pytest.raises(vitport.VitportError, match="seed: for weights alone, not for captures"):
        vitport.compare(tmp_path / "a.npz", tmp_path / "b.npz", seed=3)


HERE = "tests.vit_parity.porting.test_testing"


def test_the_command_compares_models_of_ones_own(capsys, tmp_path) -> None:
    names = ["--a", f"{HERE}:own_model", "--b"]
    assert main(["compare", *names, f"{HERE}:own_port"]) == 0
    assert "Rounding explains every difference" in capsys.readouterr().out
    report = tmp_path / "out.html"
    with pytest.raises(SystemExit) as stopped:
        main(["compare", *names, f"{HERE}:own_wrong", "--report", str(report), "--json"])
    assert stopped.value.code == 1
    told = json.loads(capsys.readouterr().out)
    assert [(it["stage"], it["counterpart"], it["causes"]) for it in told["faults"]] == [
        ("1", "act", ["uses tanh GELU instead of GELU"])
    ]
    assert report.is_file()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--a", "nothing_here:load", "--b", f"{HERE}:own_port"], "--a nothing_here:load fails"),
        (["--a", "load", "--b", f"{HERE}:own_port"], "must be MODULE:FUNCTION"),
        (["--a", f"{HERE}:own_model"], "--a MODULE:FUNCTION --b MODULE:FUNCTION"),
        (["--a", f"{HERE}:own_port", "--b", f"{HERE}:own_port"], "needs the models' inputs"),
        ([], "Nothing is named to compare"),
        (["weights.pth", "--a", f"{HERE}:own_model", "--b", f"{HERE}:own_port"], "A: for weights alone"),
        (["--a", f"{HERE}:own_model", "--b", f"{HERE}:own_port", "--explain"], "--explain: for weights alone"),
        (
            ["--a", f"{HERE}:own_model", "--b", f"{HERE}:own_port", "--seed", "3", "--fail-above", "0.1"],
            "--seed, --fail-above: for weights alone",
        ),
        (["--a", f"{HERE}:own_model", "--b", f"{HERE}:own_port", "--heads", "3"], "how to read weights: for weights"),
    ],
)
def test_the_command_says_what_it_needs(words, told, capsys) -> None:
    assert main(["compare", *words]) == 2
    assert told in capsys.readouterr().err


def test_options_of_weights_are_refused_for_models_of_ones_own() -> None:
    with pytest.raises(vitport.VitportError, match="seed, explain, model: for weights alone"):
        vitport.compare(model(), port, inputs=X, explain=True, seed=1, model="vit_tiny_patch16_224")  # type: ignore
    with pytest.raises(vitport.VitportError, match="loss: for two models of your own alone"):
        vitport.compare("a.npz", "b.npz", loss=abs)  # type: ignore[call-overload]
    with pytest.raises(vitport.VitportError, match="pairs: for two models of your own alone"):
        vitport.compare("a.npz", "b.npz", pairs="pairs.txt")  # type: ignore[call-overload]
