"""Classes of ImageNet's other test sets. Oracles: their papers' counts, facts of WordNet, and timm's lists (peer)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import conversion
import vit_jax
from tests.random_weights import random_params
from tests.vit_jax.training.data.folders import encoded, smooth_image
from vit_jax.training.data import open_source
from vit_jax.training.evaluation.class_names import places_of
from vit_jax.training.evaluation.evaluate import evaluate, write_predictions
from vit_jax.training.evaluation.imagenet import subsets, wordnet_ids
from vit_spec import ViTConfig, VitportError

TENCH, GOLDFISH, WHITE_SHARK, BULLFROG, TOILET_PAPER = 0, 1, 2, 30, 999
"""Numbers as in every list of ImageNet's classes."""


@dataclass(frozen=True)
class Folders:
    classes: tuple[str, ...]
    name: str = "folders"


def test_the_lists_have_the_papers_counts() -> None:
    ids = wordnet_ids()
    assert len(ids) == len(set(ids)) == 1000
    assert list(ids) == sorted(ids)  # the order of the challenge's classes is that of their ids
    known = {"n01440764": TENCH, "n01443537": GOLDFISH, "n01484850": WHITE_SHARK, "n15075141": TOILET_PAPER}
    assert {name: ids.index(name) for name in known} == known
    a, r = (subsets()[f"ImageNet-{letter}"] for letter in "AR")
    assert len(a) == len(r) == 200
    assert a | r < set(ids)
    # In the two repositories of their authors: bullfrog, number 30, is 8 of A; goldfish is of R, and tench of neither.
    assert sorted(a).index(ids[BULLFROG]) == 8
    assert ids[GOLDFISH] in r - a
    assert ids[TENCH] not in a | r


@pytest.mark.peer
def test_the_lists_are_timms() -> None:
    info = Path(pytest.importorskip("timm").__file__).parent / "data" / "_info"
    assert wordnet_ids() == tuple((info / "imagenet_synsets.txt").read_text().split())
    for letter in "AR":
        file = info / f"imagenet_{letter.lower()}_synsets.txt"
        assert subsets()[f"ImageNet-{letter}"] == set(file.read_text().split())


@pytest.mark.parametrize("letter", ["A", "R"])
@pytest.mark.parametrize("labels", [None, ("tench, Tinca tinca", *map(str, range(999)))], ids=["unnamed", "named"])
def test_a_and_r_are_predicted_among_their_classes(letter, labels) -> None:
    ids = subsets()[f"ImageNet-{letter}"]
    found = places_of(Folders(tuple(sorted(ids))), labels, 1000)
    assert found.alone
    assert [wordnet_ids()[at] for at in found.numbers] == sorted(ids)
    assert f"ImageNet-{letter}" in found.note


def test_v2_and_sketch_are_predicted_among_all() -> None:
    numbered = Folders(tuple(sorted(map(str, range(1000)))))  # 0, 1, 10, 100, …
    found = places_of(numbered, None, 1000)
    assert (found.numbers.tolist()[:4], found.alone) == ([0, 1, 10, 100], False)
    assert places_of(Folders(wordnet_ids()), None, 1000).numbers.tolist() == list(range(1000))
    some = places_of(Folders((wordnet_ids()[30], wordnet_ids()[7])), None, 1000)
    assert (some.numbers.tolist(), some.alone) == ([30, 7], False)
    assert "2 of 1000" in some.note


def test_other_models_and_folders_are_not_imagenets() -> None:
    with pytest.raises(VitportError, match="The model has 10 classes"):
        places_of(Folders(("n01440764", "n01443537")), None, 10)
    with pytest.raises(VitportError, match="The model has 1000 classes"):
        places_of(Folders(("n01440764", "n00000001")), None, 1000)
    own = tuple(sorted(map(str, range(1000))))  # a model that was trained on folders of these names
    assert places_of(Folders(own), own, 1000).numbers.tolist() == list(range(1000))


def test_evaluation_cuts_off_the_other_classes(tmp_path) -> None:
    """On ImageNet-R's folders: scores are those of the 200 logits, computed here in numpy."""
    ids = sorted(subsets()["ImageNet-R"])
    for at, name in enumerate(ids):
        (tmp_path / "r" / name).mkdir(parents=True)
        (tmp_path / "r" / name / "0.png").write_bytes(encoded(smooth_image(at), "PNG"))
    config = ViTConfig(image_size=(16, 24), patch_size=8, embed_dim=16, depth=1, num_heads=2, mlp_hidden_dim=32)
    checkpoint = conversion.Checkpoint.of(config, random_params(config, seed=1, dtype=np.float32))
    source = open_source(str(tmp_path / "r"), "train")
    assert source is not None
    result = evaluate(checkpoint, source, batch=64)
    assert result.scores.images == 200
    assert result.images_per_second is not None
    model = vit_jax.create_model(weights=checkpoint)
    rows = [(record.name, record.label) for record in (source[at] for at in range(len(source)))]
    pixels = np.stack([conversion.load_image(name, checkpoint.preprocessing) for name, _ in rows])
    own = np.array([at for at, name in enumerate(wordnet_ids()) if name in set(ids)])
    logits = np.asarray(model(pixels), np.float64)[:, own]
    labels = np.array([label for _, label in rows])
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    odds /= odds.sum(axis=1, keepdims=True)
    assert result.predicted.tolist() == logits.argmax(axis=1).tolist()
    assert result.scores.metrics()["loss"] == pytest.approx(-np.log(odds[range(200), labels]).mean(), rel=1e-5)
    np.testing.assert_allclose(result.confidence, odds.max(axis=1), rtol=1e-5)  # float32: 7e-7 measured
    write_predictions(tmp_path / "p.csv", result, checkpoint, source)
    assert ids[result.predicted[0]] == (tmp_path / "p.csv").read_text().splitlines()[1].split(",")[2]
