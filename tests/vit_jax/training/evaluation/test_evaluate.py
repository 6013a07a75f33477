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
from vit_jax.training.data import Record
from vit_jax.training.evaluation.evaluate import EvaluationResult, evaluate, read_real_labels, real_accuracy
from vit_jax.training.evaluation.scores import Scores
from vit_jax.training.recipe.config import ModelOptions, TrainConfig
from vit_jax.training.run.setup import set_up
from vit_spec import Preprocessing, ViTConfig, VitportError

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
    assert real_accuracy(result, read_real_labels(path, IMAGENET)) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("text", "source", "sentence"),
    [
        ("{", IMAGENET, "cannot be read as ReaL labels"),
        ("{}", IMAGENET, "no list of ReaL labels"),
        ("[1, 2, 3, 4, 5]", IMAGENET, "no list of ReaL labels"),
        ("[[1]]", IMAGENET, "has no labels for"),
        ("[[1]]", Named(("cat.jpg",)), "has no labels for"),
        ("[[], [], [], [], []]", IMAGENET, "has no label for any image"),
    ],
)
def test_other_labels_or_images_are_one_sentence(text, source, sentence, tmp_path) -> None:
    (tmp_path / "real.json").write_text(text)
    with pytest.raises(VitportError, match=sentence):
        read_real_labels(tmp_path / "real.json", source)


def test_the_same_classes_in_another_order_are_refused() -> None:
    """Every image would count as another class."""
    config = ViTConfig(image_size=(4, 4), patch_size=4, embed_dim=4, depth=1, num_heads=1, num_classes=3)
    checkpoint = Checkpoint.of(config, {}, Preprocessing(size=(4, 4)), ("a", "c", "b"))
    with pytest.raises(VitportError, match="in another order, a, c, b, … instead of a, b, c"):
        evaluate(checkpoint, Named(("cat.jpg",)), batch=1)


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
    assert setup.engine.lower is not None
    text = setup.engine.lower(setup.shapes, batch).as_text()
    products = re.findall(r"dot_general[^\n]*: \(tensor<[\dx]*x(\w+)>", text)
    short = {"float32": "f32", "bfloat16": "bf16"}[precision]
    assert len(products) > 10
    assert set(products) == {short}
