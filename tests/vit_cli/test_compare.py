"""``vitport compare`` tells the differences that there are, where they begin, and why."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch

import conversion
import vit_jax
import vit_parity
import vit_torch
from conversion import load_image
from tests.vit_cli.conftest import tiny_checkpoint
from vit_cli.compare_output import bar
from vit_parity.capture_file import load_capture
from vit_spec import ViTConfig


def told(result, code: int = 0) -> dict:
    assert result.code == code, result.err
    return json.loads(result.out)


def rows(result, code: int = 0) -> dict[str, dict]:
    return {row["name"]: row for row in told(result, code)["activations"]}


@pytest.fixture(scope="session")
def tanh(tmp_path_factory):
    """The same weights, said to be of a model with the tanh form of GELU."""
    path = tmp_path_factory.mktemp("weights") / "tanh.safetensors"
    conversion.save(tiny_checkpoint(activation="gelu_tanh"), path, format="timm")
    return path


def test_frameworks_agree_on_the_same_weights(weights, vitport):
    """Float32 rounding on tokens of order 1; 1e-6 measured."""
    found = told(vitport("compare", weights, "--json"))
    assert found["schema"] == 1
    assert found["first_divergence"] is None
    assert found["a"]["title"] == f"torch:{weights}"
    assert found["b"]["title"] == f"jax:{weights}"
    assert found["seed"] == 0
    for entry in found["activations"]:
        assert entry["difference"]["max_abs"] < 1e-5
        assert entry["verdict"] == "rounding"
        assert max(entry["error_a"], entry["error_b"], entry["difference"]["relative"]) < entry["tolerance"] < 1e-4


def test_measures_are_of_jax_against_torch(weights, image, vitport):
    """Oracle: both models called directly on the image, the differences taken here in numpy."""
    found = rows(vitport("compare", weights, "--image", image, "--json"))
    pixels = load_image(image, tiny_checkpoint().preprocessing)[None]
    torch_model, jax_model = vit_torch.create_model(weights=weights).eval(), vit_jax.create_model(weights=weights)
    jax_model.eval()
    with torch.no_grad():
        expected = torch_model(torch.tensor(pixels).permute(0, 3, 1, 2)).double().numpy()
    actual = np.asarray(jax_model(pixels), np.float64)
    assert found["logits"]["difference"]["max_abs"] == pytest.approx(np.abs(actual - expected).max(), abs=2e-6)


def test_a_difference_is_located_attributed_and_explained(weights, tanh, vitport):
    """B is run with tanh GELU: the first layer that is off is the first activation function, and B is to blame."""
    result = vitport("compare", weights, f"jax:{tanh}", "--explain", "--json")
    found = told(result, code=1)
    assert found["first_divergence"] == "blocks.0.mlp.act"
    row = next(row for row in found["activations"] if row["name"] == "blocks.0.mlp.act")
    assert row["verdict"] == "b"
    assert row["error_b"] > 1e-5 > 1e-6 > row["error_a"]
    (cause,) = found["explanations"]
    assert cause["cause"] == "uses tanh GELU"
    assert cause["run"] == f"jax:{tanh}"
    assert cause["before"] > 1e-5 > 1e-6 > cause["after"]
    text = vitport("compare", weights, tanh, "--explain").out
    assert "First divergence: blocks.0.mlp.act (B is off; " in text
    assert f"Cause: torch:{tanh} uses tanh GELU (blocks.0 to blocks.1): " in text


def test_a_sound_pair_has_no_cause(weights, vitport):
    assert "there is no cause to name" in vitport("compare", weights, "--explain").out


def test_the_table_shows_blocks_in_order_and_everything_when_asked(weights, tanh, vitport):
    """Embeddings, each block, the final norm, the head; or the worst first."""

    def names(*options):
        lines = vitport("compare", weights, tanh, *options).out.splitlines()
        begin = next(at for at, line in enumerate(lines) if line.startswith("──"))
        return [line.split()[0] for line in lines[begin + 1 :] if "|" in line]

    assert names() == ["embed", "blocks.0", "blocks.1", "norm", "logits"]
    everything = names("--all")
    assert everything[0] == "patch_embed.proj"
    assert "blocks.1.attn.softmax" in everything
    assert len(everything) == 33
    worst, found = names("--all", "--worst-first"), rows(vitport("compare", weights, tanh, "--json"), code=1)
    beyond = {name: row["difference"]["relative"] / row["tolerance"] for name, row in found.items()}
    assert worst == sorted(everything, key=lambda name: -beyond[name])
    assert worst[0].endswith("mlp.act")
    assert set(worst) == set(everything)


def test_a_bar_shows_decades_and_marks_the_bound():
    """One character is three quarters of a decade from 1e-9 on."""
    assert bar(1e-6, 1e-3) == "████····|···"
    assert bar(1e-3, 1e-6) == "████|███····"
    assert bar(0, 1e-6) == "····|·······"
    assert bar(float("nan"), 1e-6) == "████|███████"
    assert bar(float("inf"), 1.0) == "███████████|"


def test_fail_above_exits_with_the_first_layer_beyond(weights, tanh, vitport):
    """For continuous integration: status 1 and one line; below the limit, status 0."""
    result = vitport("compare", weights, tanh, "--fail-above", "1e-5")
    assert result.code == 1
    assert result.err.startswith("vitport: blocks.0.mlp.act differs by ")
    assert result.err.endswith("which is above 1e-05.\n")
    assert vitport("compare", weights, "--fail-above", "1e-5").code == 0
    assert vitport("compare", weights, tanh, "--fail-above", "1").code == 0  # a limit takes the place of rounding's


def test_the_status_tells_whether_rounding_explains_every_difference(weights, tanh, vitport, tmp_path):
    assert vitport("compare", weights, "--explain").code == 0
    assert vitport("compare", weights, tanh, "--report", tmp_path / "out.html").code == 1
    assert (tmp_path / "out.html").is_file()
    vitport("compare", weights, "--save-capture", tmp_path / "a.npz")
    vitport("compare", tanh, "--save-capture", tmp_path / "b.npz")
    assert vitport("compare", tmp_path / "a.npz", tmp_path / "b.npz").code == 1
    assert vitport("compare", weights, tmp_path / "missing.npz").code == 2


def test_teacher_forcing_measures_each_block_by_itself(weights, tanh, vitport):
    found = told(vitport("compare", weights, tanh, "--teacher-forced", "--json", "--fail-above", "1e-5"), code=1)
    found = found["local_errors"]
    assert list(found) == [f"torch:{weights}", f"torch:{tanh}"]
    assert max(found[f"torch:{weights}"].values()) < 1e-6 < 1e-5 < min(found[f"torch:{tanh}"].values())
    assert "A alone" in vitport("compare", weights, "--teacher-forced").out


@pytest.mark.parametrize(("ending", "dtype"), [("npz", "bfloat16"), ("safetensors", "float32")])
def test_a_capture_stands_for_its_run(weights, image, vitport, tmp_path, ending, dtype):
    """Saved from JAX on an image, compared with PyTorch on the same image without being told which."""
    path = tmp_path / f"run.{ending}"
    result = vitport("compare", f"jax:{weights}", "--save-capture", path, "--image", image, "--dtype", dtype)
    assert (result.code, result.out) == (0, f"wrote {path}: 33 activations of jax:{weights}\n")
    saved = load_capture(path)
    assert saved.dtype.name == dtype
    np.testing.assert_array_equal(saved.images[0], load_image(image, tiny_checkpoint().preprocessing))
    found = told(vitport("compare", weights, path, "--json", "--explain"))
    assert found["b"]["title"] == f"jax:{weights}"
    assert (found["first_divergence"], found["explanations"]) == (None, [])
    found = told(vitport("compare", path, path, "--json"))
    assert max(row["difference"]["max_abs"] for row in found["activations"]) == 0
    assert found["activations"][0]["error_a"] is None


def test_a_hugging_face_folder_is_run_by_transformers(vitport, tmp_path):
    """ViT with random weights: its own code against ours, layer by layer."""
    config = ViTConfig(
        image_size=12, patch_size=4, embed_dim=24, depth=2, num_heads=3, mlp_hidden_dim=41, num_classes=7
    )
    conversion.save(tiny_checkpoint(**config.to_dict()), tmp_path / "vit", format="huggingface-vit")
    found = told(vitport("compare", tmp_path / "vit", f"transformers:{tmp_path / 'vit'}", "--explain", "--json"))
    assert (found["first_divergence"], found["explanations"]) == (None, [])
    assert len(found["activations"]) == 32
    assert found["b"]["facts"]["framework"].startswith("transformers ")


def test_another_image_size_can_be_asked_for(weights, vitport):
    """The position table is resized for both frameworks alike."""
    found = rows(vitport("compare", weights, "--json", "--image-size", 16, 8))
    assert found["embed"]["shape"] == [1, 9, 24]
    assert found["norm"]["difference"]["max_abs"] < 1e-5


def test_seed_decides_the_input(weights, vitport, tmp_path):
    """The same numbers for one seed, others for another, of standard deviation 1."""
    seen = []
    for seed in (0, 0, 1):
        vitport("compare", f"torch:{weights}", "--save-capture", tmp_path / "run.npz", "--seed", seed)
        seen.append(load_capture(tmp_path / "run.npz").images)
    assert seen[0].shape == (1, 12, 20, 3)
    np.testing.assert_array_equal(seen[0], seen[1])
    assert np.abs(seen[0] - seen[2]).max() > 1
    assert seen[0].std() == pytest.approx(1, abs=0.1)


def test_without_torch_the_way_to_it_is_told(weights, vitport, monkeypatch):
    """The import fails as it does where PyTorch is not installed."""
    monkeypatch.setitem(sys.modules, "torch", None)
    result = vitport("compare", weights)
    assert result.code == 2
    assert "pip install 'vitport[torch]'" in result.err


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (("jax:{weights}",), "nothing to be compared with"),
        (("{weights}", "capture:{weights}"), "is not a capture"),
        (("{weights}", "transformers:{weights}"), "no config.json"),
        (("{weights}", "--save-capture", "{folder}/run.txt"), "end in .npz or .safetensors"),
        (("{weights}", "capture:{folder}/nowhere.npz"), "does not exist"),
    ],
)
def test_mistakes_are_told_in_one_sentence(weights, vitport, tmp_path, args, sentence):
    result = vitport("compare", *(arg.format(weights=weights, folder=tmp_path) for arg in args))
    assert result.code == 2
    assert sentence in result.err
    assert result.err.count("\n") == 1


def test_two_captures_alone_cannot_be_explained(weights, vitport, tmp_path):
    path = tmp_path / "run.npz"
    vitport("compare", weights, "--save-capture", path)
    result = vitport("compare", path, path, "--explain")
    assert result.code == 2
    assert "give weights for A or B" in result.err


def test_a_report_is_written_with_its_causes(weights, tanh, vitport, tmp_path):
    """One file beside the usual output; also of two captures, which have no weights to explain by."""
    path = tmp_path / "out.html"
    assert vitport("compare", weights, tanh, "--report", path).code == 1
    assert "uses tanh GELU" in path.read_text(encoding="utf-8")
    capture = tmp_path / "run.npz"
    vitport("compare", weights, "--save-capture", capture)
    assert vitport("compare", capture, capture, "--report", tmp_path / "two.html").code == 0
    result = vitport("compare", weights, "--report", tmp_path / "nowhere" / "out.html")
    assert result.code == 2
    assert result.err.count("\n") == 1


def test_a_figure_is_drawn(weights, vitport, tmp_path):
    """Errors of both sides in three dtypes with their bounds; of two captures alone their difference."""
    path, capture = tmp_path / "out.svg", tmp_path / "run.npz"
    assert vitport("compare", weights, "--figure", path).code == 0
    text = path.read_text(encoding="utf-8")
    for name in ("A, float32", "B, float32", "bfloat16", "float16", "bound, float32", "bound, float16"):
        assert f">{name}<" in text
    vitport("compare", weights, "--save-capture", capture)
    assert vitport("compare", capture, capture, "--figure", tmp_path / "two.png").code == 0
    result = vitport("compare", weights, "--figure", tmp_path / "out.gif")
    assert result.code == 2
    assert result.err.count("\n") == 1


def test_gradients_are_compared_from_the_head_to_the_image(weights, tanh, vitport):
    """With the other GELU only what lies before it in the backward pass is off, and B is the one that is."""
    sound = told(vitport("compare", weights, "--gradients", "--json"))["gradients"]
    assert sound[-1]["name"] == "images"
    assert sound[0]["name"].startswith(("norm.", "head."))
    assert len(sound) == len(tiny_checkpoint().params) + 1
    for row in sound:
        assert max(row["error_a"], row["error_b"], row["difference"]["relative"]) < 1e-4  # 1e-5 of the keys' bias
    lines = vitport("compare", weights, tanh, "--gradients").out.partition("with respect to")[2].splitlines()
    errors = {line.split()[0]: [float(number) for number in line.split()[-2:]] for line in lines[2:] if line.strip()}
    assert list(errors) == [row["name"] for row in sound]
    assert errors["blocks.1.mlp.fc1.weight"][1] > 1e-4 > 1e-6 > errors["blocks.1.mlp.fc1.weight"][0]


def test_gradients_of_a_capture_are_refused(weights, vitport, tmp_path):
    vitport("compare", weights, "--save-capture", tmp_path / "run.npz")
    result = vitport("compare", weights, tmp_path / "run.npz", "--gradients")
    assert result.code == 2
    assert "torch: and jax: only" in result.err


def test_the_python_function_finds_what_the_command_prints(weights, tanh, vitport):
    """``vit_parity.compare`` is the command without its printing: the same rows, causes, errors and gradients."""
    options = ("--explain", "--teacher-forced", "--gradients", "--seed", 3, "--image-size", 16, 8)
    printed = told(vitport("compare", weights, f"jax:{tanh}", "--json", *options), code=1)
    found = vit_parity.compare(
        weights, f"jax:{tanh}", seed=3, image_size=(16, 8), explain=True, local_errors=True, gradients=True
    )
    assert json.loads(json.dumps([row.to_dict() for row in found.comparison.rows])) == printed["activations"]
    assert [cause.sentence for cause in found.explanations] == [cause["sentence"] for cause in printed["explanations"]]
    assert found.local_errors == printed["local_errors"]
    assert [row.to_dict() for row in found.gradients] == printed["gradients"]
    assert found.runs.images.shape == (1, 16, 8, 3)
