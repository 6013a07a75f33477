"""Digests: their estimates against distances in numpy, and what they find against what arrays find."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

import vitport
from tests.vit_parity.porting.ports import Encoder, encoder, ported, tokens
from vit_cli.main import main
from vit_parity.porting import Digest, capture, compare, compare_digests
from vit_parity.porting.digests import ERROR, digested, distance
from vit_spec import VitportError

X = tokens(2, 7, 24)


def test_a_distance_is_estimated_as_well_as_is_said() -> None:
    """Three standard errors hold all but three of a thousand pairs of random arrays; measured: all but 1 of 200."""
    rng = np.random.default_rng(0)
    off = []
    for at in range(200):
        x = rng.standard_normal((3, 40 + at))
        y = x + 10.0 ** -(at % 9) * rng.standard_normal(x.shape) * rng.random(x.shape) ** 4
        off.append(distance(digested(x), digested(y)) / np.linalg.norm(x - y) - 1)
    assert np.mean(np.abs(off) < ERROR) >= 0.99
    assert abs(np.std(off) - 512**-0.5) < 0.008
    assert abs(np.mean(off)) < 0.01


def test_axes_that_libraries_order_otherwise_are_found() -> None:
    x = tokens(2, 5, 6, 7)
    moved = {"channels last": x.transpose(0, 2, 3, 1), "tokens": x.transpose(0, 2, 3, 1).reshape(2, 42, 5),
             "heads behind tokens": x.transpose(0, 2, 1, 3), "joined": x.reshape(2, 5, 42)}  # fmt: skip
    for y in moved.values():
        assert distance(digested(x), digested(y)) < 1e-12
        assert distance(digested(y), digested(x)) < 1e-12
        assert distance(digested(x), digested(y[::-1])) > 1
    assert distance(digested(x), digested(x[:1])) == np.inf


def faulty() -> Encoder:
    port = ported(encoder())
    port.layers[1].act = nnx.gelu  # the tanh form
    return port


def test_digests_of_both_frameworks_tell_what_captures_tell(tmp_path) -> None:
    theirs = capture(encoder(), X, keep="digest", to=tmp_path / "theirs.npz")
    assert isinstance(theirs, Digest)
    whole = capture(encoder(), X)
    assert list(theirs.stages) == list(whole.activations)
    for name, stage in theirs.stages.items():
        assert (stage.shape, stage.dtype) == (whole.activations[name].shape, "float32")
        np.testing.assert_allclose(stage.norm, np.linalg.norm(whole.activations[name].astype(np.float64)), rtol=1e-6)
    mine = capture(ported(encoder()), X, keep="digest")
    assert list(mine.stages) == list(capture(ported(encoder()), X).activations)
    found = compare_digests(tmp_path / "theirs.npz", mine)
    assert found.equal, str(found)
    assert {("layers.0.norm1", "layers.0.ln_1"), ("output", "output")} <= {
        (it.stage, it.counterpart) for it in found.rows
    }
    assert "as far as digests show (estimates to 13%)" in found.conclusion
    wrong = compare_digests(theirs, faulty(), X)
    assert not wrong.equal
    first = next(row for row in wrong.rows if row.verdict != "rounding")
    assert (first.stage, first.counterpart) == ("layers.1.linear2", "layers.1.fc2")
    exact = compare(whole, capture(faulty(), X))
    row = next(row for row in exact.rows if row.name == "layers.1.linear2")
    assert row.judged != "rounding"
    assert abs(first.distance / row.difference.relative - 1) < ERROR
    assert "is the first stage apart" in str(wrong)


def test_a_digest_is_small() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3), torch.nn.ReLU()).eval()
    kept = capture(model, tokens(2, 3, 64, 64), keep="digest")
    assert sum(it.sketches.nbytes for it in kept.stages.values()) <= 3 * 3 * 2048
    assert kept.stages["1"].shape == (2, 16, 62, 62)


def test_names_are_chosen_and_loops_keep_digests(tmp_path) -> None:
    model = encoder()
    assert list(capture(model, X, names="layers.*.norm1").activations) == ["layers.0.norm1", "layers.1.norm1"]
    assert list(capture(ported(model), X, names=["*fc1"], keep="digest").stages) == ["layers.0.fc1", "layers.1.fc1"]
    with pytest.raises(VitportError, match=r"No stage of TransformerEncoder has a name like head\.\*"):
        capture(model, X, names="head.*")
    with vitport.capturing(model, keep="digest", to=tmp_path) as steps, torch.no_grad():
        model(torch.tensor(X))
        model(torch.tensor(X))
    assert compare_digests(steps[0], steps[1]).rows[-1].distance == 0
    assert (tmp_path / "step_000001.npz").stat().st_size < 500_000


def own_port() -> tuple[Encoder, np.ndarray]:
    return ported(encoder()), X


def own_fault() -> tuple[Encoder, np.ndarray]:
    return faulty(), X


def test_the_command_takes_a_digest(tmp_path, capsys) -> None:
    capture(encoder(), X, keep="digest", to=tmp_path / "theirs.npz")
    words = ["compare", "--a", str(tmp_path / "theirs.npz"), "--b"]
    assert main([*words, "tests.vit_parity.porting.test_digests:own_port"]) == 0
    assert "Rounding explains every difference" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        main([*words, "tests.vit_parity.porting.test_digests:own_fault", "--json"])
    assert stopped.value.code == 1
    assert '"layers.1.linear2"' in capsys.readouterr().out
    assert main([*words, "tests.vit_parity.porting.test_digests:own_port", "--gradients"]) == 2
    assert "Steps and digests have no --report" in capsys.readouterr().err


def test_what_digests_cannot_do_is_said(tmp_path) -> None:
    kept = capture(encoder(), X, keep="digest")
    with pytest.raises(VitportError, match=r"compare it by vitport\.compare_digests"):
        compare(kept, encoder(), X)
    with pytest.raises(VitportError, match="only whole arrays are compared"):
        compare_digests(kept, kept, pairs=["layers.0 = layers.0[..., 0:12]"])
    with pytest.raises(VitportError, match="needs the inputs of a model"):
        compare_digests(kept, encoder())
    with pytest.raises(VitportError, match=r"must end in \.npz"):
        capture(jnp.sin, X, keep="digest", to=tmp_path / "a.safetensors")
