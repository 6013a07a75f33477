"""`vitport export`. Oracles: onnxruntime, and processes that can import neither vitport nor the other framework; pixels
are normalised in numpy."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import conversion
import vit_cli
from tests.random_weights import random_params
from tests.small_configs import BASE
from vit_cli.main import main
from vit_parity.exported import KINDS as KINDS_OF_FILES
from vit_parity.exported import export, run_back, write
from vit_spec import Preprocessing

SWIN = Path(vit_cli.__file__).parent / "assets" / "digits_swin.safetensors"
CHECKPOINT = conversion.Checkpoint.of(
    BASE, random_params(BASE, 1, dtype=np.float32), Preprocessing(size=BASE.image_size, mean=(0.3, 0.5, 0.6))
)
"""Images of 12 x 20 pixels, each channel normalised otherwise."""
KINDS = {"onnx": "onnxruntime", "stablehlo": "jax alone", "pt2": "torch alone"}


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("export") / "w.safetensors"
    conversion.save(CHECKPOINT, path, format="timm")
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_a_graph_gives_the_logits_of_the_other_frameworks_model(kind, weights, tmp_path, capsys) -> None:
    """Measured: 2e-7 to 5e-7 of the largest logit; 1e-5 is asserted. From pixels, which are harder to get right."""
    out = tmp_path / f"model.{kind}"
    assert main(["export", str(weights), str(out), "--preprocessing"]) == 0
    told = capsys.readouterr().out
    assert "takes pixels, uint8, (B, 12, 20, 3)" in told
    assert f"run by {KINDS[kind]}, batches of 1 and 3: " in told
    assert "equal" in told
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


@pytest.mark.parametrize(
    ("kind", "data"), [("onnx", ".data"), pytest.param("stablehlo", ".safetensors", marks=pytest.mark.slow)]
)
def test_parameters_may_lie_beside(kind, data, weights, tmp_path, capsys) -> None:
    """The file alone is smaller than the parameters; without them it does not run."""
    out = tmp_path / f"model.{kind}"
    assert main(["export", str(weights), str(out), "--parameters", "beside"]) == 0
    told = capsys.readouterr().out
    assert f"wrote {out}{data}" in told
    assert f"run by {KINDS[kind]}" in told
    assert sorted(path.name for path in tmp_path.iterdir()) == [out.name, f"{out.name}{data}"]
    beside, size = tmp_path / f"{out.name}{data}", sum(array.nbytes for array in CHECKPOINT.params.values())
    assert 0.8 * size < beside.stat().st_size < 1.3 * size
    assert main(["export", str(weights), str(out), "--parameters", "beside"]) == 2
    assert f"{out} exists already: choose another destination, or pass --overwrite" in capsys.readouterr().err
    out.unlink()
    assert main(["export", str(weights), str(out), "--parameters", "beside"]) == 2
    assert f"{beside} exists already" in capsys.readouterr().err
    assert not out.exists()


def test_parameters_beside_a_graph_of_onnx_are_read_back(tmp_path) -> None:
    """Also what is too large to lie within, which is refused with what to do. Oracle: what was written."""
    export(CHECKPOINT, tmp_path / "m.onnx", beside_it=True)
    found = conversion.load(tmp_path / "m.onnx").params
    for name, array in CHECKPOINT.params.items():
        np.testing.assert_array_equal(found[name], array)


def test_what_is_too_large_for_a_file_of_onnx_is_one_sentence(weights, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(write, "_MOST", 10_000)
    assert main(["export", str(weights), str(tmp_path / "m.onnx")]) == 2
    assert "do not fit into an ONNX file, which has at most 10,000: pass --parameters beside" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert main(["export", str(weights), str(tmp_path / "m.onnx"), "--parameters", "beside"]) == 0


@pytest.mark.parametrize("at", [1, 2])
def test_a_graph_and_its_parameters_fit_together_wherever_the_command_is_interrupted(at, tmp_path, monkeypatch) -> None:
    """Before either of the two is renamed: both are the old ones, or the graph is missing."""

    def made(text: bytes):
        return lambda checkpoint, path, shape, raw, data: (path.write_bytes(text), data.path.write_bytes(text))

    monkeypatch.setitem(KINDS_OF_FILES, ".onnx", made(b"old"))
    export(CHECKPOINT, tmp_path / "m.onnx", beside_it=True)
    monkeypatch.setitem(KINDS_OF_FILES, ".onnx", made(b"new"))
    real, calls = Path.replace, []

    def interrupted(self, target):
        calls.append(target)
        if len(calls) == at:
            raise KeyboardInterrupt
        return real(self, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export(CHECKPOINT, tmp_path / "m.onnx", beside_it=True)
    left = {it.name: it.read_bytes() for it in tmp_path.iterdir()}
    assert "m.onnx" not in left or left["m.onnx"] == left["m.onnx.data"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_swin_transformer_is_written_too(kind, tmp_path, capsys) -> None:
    assert main(["export", str(SWIN), str(tmp_path / f"model.{kind}")]) == 0
    assert "takes normalised images, float32, (B, " in capsys.readouterr().out


def test_onnx_takes_any_batch_and_has_names(weights, tmp_path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    export(conversion.load(weights), tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    assert [(node.name, node.shape) for node in session.get_inputs()] == [("images", ["B", 3, 12, 20])]
    assert [node.name for node in session.get_outputs()] == ["logits"]
    assert session.run(None, {"images": np.zeros((5, 3, 12, 20), np.float32)})[0].shape == (5, 7)


def test_other_weights_are_told(weights, tmp_path) -> None:
    """What could not fail would prove nothing."""
    exported = export(CHECKPOINT, tmp_path / "m.onnx")
    params = dict(CHECKPOINT.params)
    params["blocks.1.mlp.fc2.bias"] = np.array(params["blocks.1.mlp.fc2.bias"])
    params["blocks.1.mlp.fc2.bias"][0] += 1e-2  # of one channel: the norm takes what all have in common
    other = conversion.Checkpoint.of(BASE, params, CHECKPOINT.preprocessing)
    assert run_back(exported, CHECKPOINT).equal
    assert not run_back(exported, other).equal


def test_what_cannot_be_written_is_one_sentence(weights, tmp_path, capsys) -> None:
    for out, sentence in (
        (tmp_path / "m.tflite", "says no kind of file by its suffix: give one of .onnx, .stablehlo, .pt2"),
        (tmp_path / "no" / "m.onnx", f"the folder {tmp_path / 'no'} does not exist"),
    ):
        assert main(["export", str(weights), str(out)]) == 2
        assert sentence in capsys.readouterr().err
    assert main(["export", str(weights), str(tmp_path / "m.pt2"), "--parameters", "beside"]) == 2
    assert "has its parameters within: torch.export writes no other files" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_source_is_not_replaced_and_a_link_stays_one(weights, tmp_path, capsys, monkeypatch) -> None:
    """Weights are recognised by their content, so the source may have any name; nothing is computed here."""
    monkeypatch.setitem(KINDS_OF_FILES, ".onnx", lambda checkpoint, path, *rest: path.write_bytes(b"a graph"))
    shutil.copy(weights, tmp_path / "m.onnx")
    (tmp_path / "link.onnx").symlink_to("m.onnx")
    for out in ("m.onnx", "link.onnx"):
        assert main(["export", str(tmp_path / "m.onnx"), str(tmp_path / out), "--overwrite"]) == 2
        assert "is another file of this command" in capsys.readouterr().err
    assert (tmp_path / "m.onnx").read_bytes() == weights.read_bytes()
    (tmp_path / "out").mkdir()
    (tmp_path / "new.onnx").symlink_to(tmp_path / "out" / "there.onnx")
    export(CHECKPOINT, tmp_path / "new.onnx")
    assert (tmp_path / "new.onnx").is_symlink()
    assert {it.name: it.read_bytes() for it in (tmp_path / "out").iterdir()} == {"there.onnx": b"a graph"}
