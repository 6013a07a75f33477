"""ImageNet's reassessed labels, and the precision of a run.

Oracles: labels counted by hand; the dtypes of the products in the compiled program.
"""

from __future__ import annotations

import dataclasses
import json
import re

import jax
import numpy as np
import pytest

from conversion import Checkpoint
from vit_jax import training
from vit_jax.training.data import Record, Source
from vit_jax.training.evaluation.class_names import places_of
from vit_jax.training.evaluation.evaluate import EvaluationResult, evaluate, read_real_labels, real_accuracy
from vit_jax.training.evaluation.scores import Scores
from vit_jax.training.recipe.config import ModelOptions, TrainConfig
from vit_jax.training.run.setup import set_up
from vit_spec import Preprocessing, ViTConfig, VitportError, parameters

pytestmark = pytest.mark.jax_alone


@dataclasses.dataclass
class Named:
    """Images that are nothing but their names."""

    names: tuple[str, ...]
    name: str = "val"
    classes: tuple[str, ...] = ("a", "b", "c")

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, at: int) -> Record:
        return Record(self.names[at], 0, b"")


IMAGENET = Named(tuple(f"val/n0/ILSVRC2012_val_{number:08d}.JPEG" for number in (3, 1, 2, 5, 4)))


def test_whatever_is_in_an_images_list_is_correct_and_empty_lists_do_not_count(tmp_path) -> None:
    """By number: 1 has [0, 2], 2 nothing, 3 [1], 4 [1], 5 [0]; the last image could not be read."""
    path = tmp_path / "real.json"
    path.write_text(json.dumps([[0, 2], [], [1], [1], [0]]))
    result = EvaluationResult(Scores(3), np.array([1, 2, 0, 2, -1]))
    assert real_accuracy(result, read_real_labels(str(path), IMAGENET)) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("text", "source", "sentence"),
    [
        ("{", IMAGENET, "cannot be read as ReaL labels"),
        ("{}", IMAGENET, "not hold a list of ReaL labels"),
        ("[1, 2, 3, 4, 5]", IMAGENET, "not hold a list of ReaL labels"),
        ("[[1]]", IMAGENET, "has no labels for"),
        ("[[1]]", Named(("cat.jpg",)), "has no labels for"),
        ("[[], [], [], [], []]", IMAGENET, "has no label for any image"),
    ],
)
def test_other_labels_or_images_are_one_sentence(text, source, sentence, tmp_path) -> None:
    (tmp_path / "real.json").write_text(text)
    with pytest.raises(VitportError, match=sentence):
        read_real_labels(str(tmp_path / "real.json"), source)


def _answers(source: Source, labels: tuple[str, ...] | None) -> EvaluationResult:
    """What a model scores that reads the class in its own order from the mean of a grey image: 0, 60, 120, …"""
    config = ViTConfig(
        image_size=(4, 4), patch_size=4, embed_dim=4, depth=1, num_heads=1, num_classes=len(labels or source.classes),
        pool="avg", final_norm="none", in_channels=3, mlp_hidden_dim=4,
    )  # fmt: skip
    params = {it.name: np.zeros(it.shape, np.float32) for it in parameters(config)}
    params["patch_embed.proj.weight"][0] = 1 / 48
    params["patch_embed.proj.bias"][1] = 1
    place = np.arange(config.num_classes) * 60 / 255  # the nearest place has the largest 2px - p²
    params["head.weight"][:, 0], params["head.weight"][:, 1] = 2000 * place, -1000 * place**2
    steps = Preprocessing(size=(4, 4), mean=(0, 0, 0), std=(1, 1, 1), resize="squash")
    return evaluate(Checkpoint.of(config, params, steps, labels), source, batch=4)


@dataclasses.dataclass
class Greys:
    """An image for each class, of the grey that stands for a place in the order of ``told``."""

    classes: tuple[str, ...]
    told: tuple[str, ...]
    name: str = "greys"

    def __len__(self) -> int:
        return len(self.classes)

    def __getitem__(self, at: int) -> Record:
        return Record(str(at), at, np.full((4, 4, 3), 60 * self.told.index(self.classes[at]), np.uint8))


ORDER = ("cat", "ant", "dog", "bee")
AGREEING = {
    "the same order": (ORDER, ORDER, ORDER, ""),
    "another order": (("ant", "bee", "cat", "dog"), ORDER, ORDER, "matched the classes of greys by name"),
    "a part of them": (("bee", "cat"), ORDER, ORDER, "greys has 2 of the model's 4 classes, by name"),
    "other spellings": (("ANT", "bee_", "Cat", "dog"), ORDER, ("Cat", "ANT", "dog", "bee_"), "by name"),
    "one of several names": (
        ("bee", "cat"), ("cat, Felis", "ant", "dog", "honey-bee, bee"), ORDER, "2 of the model's 4 classes"
    ),
    "no names in the weights": (ORDER, None, ORDER, "the weights have no names"),
    "no names in the data": (("0", "1", "2", "3"), ORDER, ("0", "1", "2", "3"), "greys has no names"),
}  # fmt: skip
"""Classes of the data, of the model, those of the data in the model's order, and what is said of them."""


@pytest.mark.parametrize("what", list(AGREEING))
def test_classes_are_compared_by_name_where_both_have_names(what) -> None:
    classes, labels, told, note = AGREEING[what]
    result = _answers(Greys(classes, told), labels)
    assert result.scores.metrics()["accuracy"] == 1
    assert result.predicted.tolist() == list(range(len(classes)))
    assert note in result.note
    assert (result.scores.per_class()[result.places] == 1).all()


@pytest.mark.parametrize("classes", [("ant", "bee", "cat", "cow"), ("cow", "owl"), ("n0144", "n0145", "n0146")])
def test_a_class_that_the_model_does_not_have_is_refused_by_name(classes) -> None:
    with pytest.raises(VitportError, match=f"greys has the classes .*{classes[-1]}.* which the model does not have"):
        _answers(Greys(classes, classes), ORDER)


def test_numbers_that_were_sorted_as_text_are_matched_as_numbers() -> None:
    """As folders are: 0, 1, 10, 11, 2. Oracle: the numbers themselves."""
    numbers = [str(at) for at in range(12)]
    source = Greys(tuple(sorted(numbers)), ())
    places, note, _ = places_of(source, numbers, 12)
    assert [str(place) for place in places] == list(source.classes)
    assert note == "matched the classes of greys by name"
    places, note, _ = places_of(source, None, 12)  # nobody says: ImageFolder of torchvision numbers them so
    assert places.tolist() == list(range(12))
    assert note.endswith("compared by number, in the order 0, 1, 10, 11, …, as ImageFolder of torchvision numbers them")
    with pytest.raises(VitportError, match="classes 0, 1, 10 and 9 more, which the model does not have"):
        places_of(source, [f"name {at}" for at in numbers], 12)


@pytest.mark.parametrize("placeholder", ["LABEL_{}", "class {}", "{}", "label-0{}"])
def test_placeholders_are_no_names(placeholder) -> None:
    places, note, _ = places_of(Greys(ORDER, ORDER), [placeholder.format(at) for at in range(4)], 4)
    assert places.tolist() == [0, 1, 2, 3]
    assert note == "the weights have no names of classes, so classes are compared by number"


def test_without_names_the_numbers_of_classes_must_agree() -> None:
    with pytest.raises(VitportError, match="The model has 4 classes, and greys has 3"):
        _answers(Greys(("0", "1", "2"), ("0", "1", "2")), ORDER)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_bfloat16_is_for_products_and_parameters_stay_in_float32(precision) -> None:
    model = ModelOptions(
        "vit_tiny_patch16_224", image_size=8, patch_size=4, in_channels=1, embed_dim=16, depth=1, num_heads=2
    )
    setup = set_up(TrainConfig(model, steps=1, batch=8, precision=precision, recipe=training.Recipe(ema=0.9)))
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves((setup.shapes.params, setup.shapes.ema)))
    moments = [leaf for leaf in jax.tree.leaves(setup.shapes.opt_state) if leaf.ndim]
    assert moments
    assert all(leaf.dtype == np.float32 for leaf in moments)
    shapes = {"image": ((8, 8, 8, 1), np.uint8), "label": ((8,), np.int32), "index": ((8,), np.uint32)}
    batch = {name: jax.ShapeDtypeStruct(*shape) for name, shape in shapes.items()}
    text = setup.engine.lower(setup.shapes, batch).as_text()
    products = re.findall(r"dot_general[^\n]*: \(tensor<[\dx]*x(\w+)>", text)
    short = {"float32": "f32", "bfloat16": "bf16"}[precision]
    assert len(products) > 10
    assert set(products) == {short}
