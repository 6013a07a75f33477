"""A checkpoint fitted to what the caller asks for. Oracle: the sentences that both frameworks give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import vit_jax
import vit_torch
from conversion import Checkpoint, prepare
from tests import numpy_reference
from tests.random_weights import random_images, random_params
from tests.small_configs import CONFIGS
from vit_spec import VitportError, parameters

CONFIG = CONFIGS["distilled"]
PARAMS = random_params(CONFIG, seed=1, dtype=np.float32)


def _sentence(create: Callable[..., object], weights: Checkpoint, **options: int) -> str:
    with pytest.raises(VitportError) as caught:
        create(weights=weights, **options)
    return str(caught.value)


@pytest.mark.parametrize("options", [{}, {"num_classes": 3}], ids=["own head", "new head"])
def test_both_frameworks_refuse_weights_in_memory_with_the_same_sentence(options: dict[str, int]) -> None:
    broken = {name: array for name, array in PARAMS.items() if name != "cls_token"}
    broken |= {"blocks.0.norm1.weight": np.ones(5), "blocks.0.norm1.wait": np.ones(24)}
    weights = Checkpoint.of(CONFIG, broken)
    sentences = {_sentence(create, weights, **options) for create in (vit_torch.create_model, vit_jax.create_model)}
    (sentence,) = sentences
    for part in ("missing cls_token", "(5,) instead of (24,)", "surplus blocks.0.norm1.wait"):
        assert part in sentence


def test_a_head_is_needed_unless_a_number_of_classes_is_asked_for() -> None:
    headless = Checkpoint.of(CONFIG, {name: array for name, array in PARAMS.items() if not name.startswith("head")})
    with pytest.raises(VitportError, match=r"missing head\.weight"):
        prepare(None, weights=headless)
    fitted = prepare(None, weights=headless, num_classes=3)
    assert fitted.config.num_classes == 3
    assert set(fitted.params) == set(headless.params)
    assert prepare(None, weights=fitted, num_classes=3).params.shapes == fitted.params.shapes


def test_half_a_head_is_refused_although_it_will_be_dropped() -> None:
    half = Checkpoint.of(CONFIG, {name: array for name, array in PARAMS.items() if name != "head_dist.bias"})
    with pytest.raises(VitportError, match=r"missing head_dist\.bias"):
        prepare(None, weights=half, num_classes=3)


def test_weights_are_fitted_to_the_channels_and_the_pooling_that_are_asked_for() -> None:
    """Oracle: tests/numpy_reference.py, run with the other pooling on the grey image in three channels."""
    config = CONFIGS["plain"]
    params = random_params(config, seed=1)
    fitted = prepare(None, weights=Checkpoint.of(config, params), in_chans=1, global_pool="avg")
    assert fitted.config == config.replace(in_channels=1, pool="avg")
    grey = random_images(fitted.config, 2, 1)
    expected = numpy_reference.forward(config.replace(pool="avg"), params, np.repeat(grey, 3, axis=1))
    actual = numpy_reference.forward(fitted.config, dict(fitted.params), grey)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-13)
    assert [note.partition(",")[0] for note in fitted.provenance.notes] == [
        "changed: images of 1 channel in place of 3",
        "changed: pool avg in place of token",
    ]


def test_attention_pooling_can_be_left_out_and_is_then_dropped() -> None:
    config = CONFIGS["map"]
    fitted = prepare(None, weights=Checkpoint.of(config, random_params(config, 1)), pool="avg")
    assert {name: fitted.params.shapes[name] for name in fitted.params} == {
        entry.name: entry.shape for entry in parameters(config.replace(pool="avg"))
    }
    assert "dropped attn_pool.kv.bias, " in fitted.provenance.notes[-1]


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"pool": "map"}, "does not have attn_pool.latent"),
        ({"pool": "token_avg"}, r"create the model with num_classes=0, then call reset_classifier\(7\)"),
        (
            {"depth": 3, "num_heads": 4},
            "depth=3, num_heads=4 does not fit the weights, which are of depth=1, num_heads=3",
        ),
        ({"layer_scale": 0.1}, "layer_scale=0.1 does not fit the weights, which are of layer_scale=None"),
        ({"dept": 3}, "did you mean depth"),
    ],
)
def test_what_does_not_fit_the_weights_is_refused(fields: dict[str, Any], sentence: str) -> None:
    config = CONFIGS["plain"]
    with pytest.raises(VitportError, match=sentence):
        prepare(None, weights=Checkpoint.of(config, random_params(config, 1)), **fields)


def test_another_computation_with_the_same_weights_is_told_and_a_rate_is_not() -> None:
    config = CONFIGS["plain"]
    weights = Checkpoint.of(config, random_params(config, 1))
    fitted = prepare(None, weights=weights, activation="relu", drop_path_rate=0.1)
    assert fitted.config == config.replace(activation="relu", drop_path_rate=0.1)
    assert fitted.provenance.notes == ("changed: activation relu in place of gelu, the weights as they are",)


def test_a_wider_pooling_is_taken_where_the_head_is_dropped() -> None:
    config = CONFIGS["plain"]
    fitted = prepare(None, weights=Checkpoint.of(config, random_params(config, 1)), pool="token_avg", num_classes=0)
    assert fitted.config == config.replace(pool="token_avg", num_classes=0)


@pytest.mark.parametrize("create", [vit_torch.create_model, vit_jax.create_model])
def test_weights_adapted_to_other_channels_are_told(create: Callable) -> None:
    checkpoint = Checkpoint.of(CONFIGS["plain"], random_params(CONFIGS["plain"], 0, np.float32))
    with pytest.warns(UserWarning, match="channel") as told:
        create(weights=checkpoint, in_chans=1)
    assert len(told) == 1
    assert told[0].filename == __file__


@pytest.mark.parametrize("registers", [0, 2])
def test_a_new_head_on_a_backbone_is_the_one_of_the_familys_classifier(registers, tmp_path) -> None:
    """Oracle: transformers' classifier of the family, whose head has that shape."""
    import transformers

    sizes = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 3, "image_size": 12, "patch_size": 4}
    kind = "Dinov2WithRegisters" if registers else "Dinov2"
    config = getattr(transformers, f"{kind}Config")(**sizes, mlp_ratio=2, num_labels=5)
    getattr(transformers, f"{kind}Model")(config).save_pretrained(tmp_path)
    prepared = prepare(None, weights=tmp_path, num_classes=5, family_head=True)
    theirs = getattr(transformers, f"{kind}ForImageClassification")(config).classifier.weight
    (head,) = (it.shape for it in parameters(prepared.config) if it.name == "head.weight")
    assert head == tuple(theirs.shape)
    assert "changed: pool token_avg in place of token" in prepared.provenance.notes
    chosen = prepare(None, weights=tmp_path, num_classes=5, family_head=True, pool="avg")
    assert chosen.config.pool == "avg"
    assert prepare(None, weights=tmp_path, num_classes=5).config.pool == "token"
    assert prepare(None, weights=tmp_path, family_head=True).config.pool == "token"


def test_a_new_head_in_place_of_another_reads_what_that_one_read() -> None:
    config = CONFIGS["layer-scale"]
    checkpoint = Checkpoint.of(config, random_params(config, seed=0))
    assert prepare(None, weights=checkpoint, num_classes=3, family_head=True).config.pool == "token"
