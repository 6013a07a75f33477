"""What training does where only a part is trained, and by what rates. Oracles: counts and formulas written out here."""

from __future__ import annotations

from typing import Literal

import jax
import numpy as np
import pytest

import vit_jax
from tests.vit_jax.training.runs import CONFIG, batches
from vit_jax import training
from vit_jax.training.data.stream import balanced
from vit_jax.training.recipe.finetuning import FINETUNE, completed, in_words, usual_peak
from vit_jax.training.step.losses import classification_loss
from vit_jax.training.step.optimizer import frozen_paths
from vit_spec import Preprocessing, SwinConfig, ViTConfig

pytestmark = pytest.mark.jax_alone

STILL = CONFIG.replace(drop_rate=0.0, attn_drop_rate=0.0, drop_path_rate=0.0)
SWIN = SwinConfig().replace(
    image_size=(16, 24), patch_size=2, embed_dim=8, depths=(2, 2), num_heads=(1, 2), window_sizes=4, num_classes=5
)
HEADS = {STILL: 32 * 5 + 5, SWIN: 16 * 5 + 5}
"""Parameters of the classifiers."""


def _made(config: ViTConfig | SwinConfig, recipe: training.Recipe, scan: bool = False):
    optimizer = training.make_optimizer(recipe.optimizer, training.make_schedule(recipe.schedule, 4), config)
    model = vit_jax.create_model(config)
    mesh = training.make_mesh(training.MeshShape(), jax.devices()[:1])
    engine = training.jit_engine(
        training.Forward(model, scan=scan), optimizer, recipe, Preprocessing(), mesh, jax.random.key(0)
    )
    return engine, training.init_state(vit_jax.get_params(model), optimizer, recipe)


@pytest.mark.parametrize("config", HEADS, ids=lambda config: config.family)
def test_only_what_trains_has_moments(config) -> None:
    """Adam's are two numbers for each parameter; besides there are counters."""
    _, state = _made(config, training.Recipe(training.Optimizer(frozen=("backbone",))))
    sizes = [leaf.size for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim]
    assert sum(sizes) == 2 * HEADS[config]


@pytest.mark.parametrize(
    ("config", "scan"),
    [
        (STILL, False),
        pytest.param(STILL, True, marks=pytest.mark.slow),
        pytest.param(SWIN, False, marks=pytest.mark.slow),
    ],
)
def test_a_frozen_backbone_costs_a_forward_pass(config, scan) -> None:
    """Of a step's three parts, two are the backward pass. As the compiler counts operations; measured: 0.30 to 0.35.
    A scanned loop is counted once, so that the small parts around it weigh more: 0.5."""
    batch = batches(1, config)[0]
    cost = []
    for frozen in ((), ("backbone",)):
        recipe = training.Recipe(training.Optimizer("sgd", beta1=0.0, weight_decay=0.0, frozen=frozen))
        engine, state = _made(config, recipe, scan)
        assert engine.lower is not None
        found = engine.lower(state, batch).compile().cost_analysis()
        found = found[0] if isinstance(found, list) else found
        assert found is not None
        cost.append(found["flops"])
    assert cost[1] < cost[0] * (0.5 if scan else 0.4)


@pytest.mark.parametrize(("scan", "accumulation"), [(False, 2), (True, 1)])
def test_what_is_frozen_keeps_its_bits(scan, accumulation) -> None:
    frozen = ("blocks/0", "*/bias")
    recipe = training.Recipe(training.Optimizer(frozen=frozen), accumulation=accumulation)
    engine, state = _made(STILL, recipe, scan)
    before = {path: np.asarray(array) for path, array in state.params.items()}
    placed = engine.place_state(state)
    norms = []
    for batch in batches(2, STILL):
        placed, metrics = engine.step(placed, engine.place_batch(batch))
        norms.append(float(metrics["gradient_norm"]))
    after = engine.fetch(placed).params
    still = {path for path in before if path.startswith("blocks/0/") or path.endswith("/bias")}
    assert {path for path, array in after.items() if np.array_equal(array, before[path])} == still
    assert min(norms) > 0


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("backbone", lambda path: not path.startswith("head/")),
        ("blocks", lambda path: path.startswith("blocks/")),
        ("blocks/1/", lambda path: path.startswith("blocks/1/")),
        ("blocks.1.attn", lambda path: path.startswith("blocks/1/attn/")),
        ("blocks/[0]", lambda path: path.startswith("blocks/0/")),
        ("*/attn", lambda path: "/attn/" in path),
        ("*/kernel", lambda path: path.endswith("/kernel")),
        ("blocks.0.attn.qkv.weight", lambda path: path == "blocks/0/attn/qkv/kernel"),
        ("block", None),
    ],
)
def test_patterns_freeze_what_they_say(pattern, expected) -> None:
    paths = list(vit_jax.get_params(vit_jax.create_model(STILL)))
    if expected is None:
        with pytest.raises(ValueError, match="matches no parameter: give backbone, the beginning of a path"):
            frozen_paths((pattern,), STILL)
        return
    assert {path for path, still in frozen_paths((pattern,), STILL).items() if still} == set(filter(expected, paths))


def test_a_warm_up_may_be_a_share_of_the_run() -> None:
    by_share, by_steps = (
        training.make_schedule(training.Schedule(peak=2e-3, warmup=warmup), 50) for warmup in (0.1, 5)
    )
    np.testing.assert_array_equal([by_share(at) for at in range(50)], [by_steps(at) for at in range(50)])
    assert float(np.asarray(by_share(0))) == 0
    assert float(np.asarray(by_share(5))) == pytest.approx(2e-3)
    with pytest.raises(ValueError, match=r"whole steps, or a share below 1; got 2\.5"):
        training.Schedule(warmup=2.5)
    short = training.make_schedule(training.Schedule(peak=2e-3, warmup=0.1), 4)
    assert float(np.asarray(short(0))) == pytest.approx(2e-3)


def test_the_usual_learning_rate_is_mae_s() -> None:
    """He et al. 2022, table 9: 1e-3 for 256 images, so 4e-3 for their 1024, on ViT-B; half of it at four times the
    width."""
    assert usual_peak(1024, 768) == pytest.approx(4e-3)
    assert usual_peak(1024, 4 * 768) == pytest.approx(2e-3)
    assert usual_peak(32, 768) == pytest.approx(1.25e-4)


def test_a_file_with_weights_lacks_nothing() -> None:
    """Where a file says something, it wins; where it gives steps, the epochs are not the preset's."""
    assert completed({"seed": 3}) == {"seed": 3}
    found = completed({"model": {"weights": "w"}, "steps": 7, "recipe": {"schedule": {"warmup": 2}}})
    assert (found["batch"], found["steps"], found["epochs"]) == (FINETUNE.batch, 7, None)
    assert found["recipe"]["schedule"] == {**FINETUNE.to_dict()["recipe"]["schedule"], "warmup": 2}
    assert found["model"]["weights"] == "w"
    assert completed({"seed": 3}, "w")["batch"] == FINETUNE.batch
    assert "layer decay 0.75" in in_words(training_config_with_peak())


def training_config_with_peak():
    from vit_jax.training.recipe.config import config_from_dict

    return config_from_dict(completed({"recipe": {"schedule": {"peak": 1e-3}}}, "w"), "x")


@pytest.mark.parametrize("name", ["softmax", "sigmoid"])
def test_class_weights_are_the_formulas(name: Literal["softmax", "sigmoid"]) -> None:
    """Oracle: numpy. For softmax, -sum of weight x target x log-probability, as PyTorch's cross entropy has it."""
    rng = np.random.default_rng(0)
    logits, targets = rng.standard_normal((4, 3)).astype(np.float32), rng.dirichlet(np.ones(3), 4).astype(np.float32)
    weights = (0.5, 2.0, 1.25)
    found = classification_loss(
        training.Loss(name, class_weights=weights), jax.numpy.asarray(logits), jax.numpy.asarray(targets)
    )
    x, t = logits.astype(np.float64), targets.astype(np.float64)
    each = t * (np.log(np.exp(x).sum(1, keepdims=True)) - x) if name == "softmax" else np.log1p(np.exp(x)) - t * x
    np.testing.assert_allclose(found, (each * weights).sum(1), rtol=1e-5)


def test_balanced_epochs_have_as_many_of_each_class() -> None:
    labels = np.repeat([0, 1, 2], [70, 20, 11])
    order = balanced(3, 0, labels)
    counts = np.bincount(labels[order])
    assert (len(order), counts.max() - counts.min(), counts.min()) == (101, 1, 33)
    often = np.bincount(order, minlength=101)
    assert often[labels == 0].max() == 1  # some of the large class
    assert often[labels == 2].min() == 3  # each of the small one three times
    assert set(often[labels == 1]) <= {1, 2}
    assert not np.array_equal(order, balanced(3, 1, labels))
    np.testing.assert_array_equal(order, balanced(3, 0, labels))
