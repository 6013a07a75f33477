"""Heads kept, dropped and replaced. Oracle: the shapes of ``vit_spec.parameters``, and the tensors that went in."""

from __future__ import annotations

import numpy as np
import pytest

from conversion import Checkpoint, TensorTable, with_head
from conversion.tensors.check import check_complete
from tests.conversion.canaries import ASYMMETRIC, assert_same_tensors, canary_checkpoint, canary_params
from vit_spec import VitportError

DISTILLED = ASYMMETRIC.replace(distilled=True, representation_size=None, depth=1)
TOKEN_AVERAGE = ASYMMETRIC.replace(pool="token_avg", representation_size=None, depth=1)
HEADLESS = ASYMMETRIC.replace(num_classes=0, depth=1)


def _body(checkpoint: Checkpoint) -> TensorTable:
    return TensorTable({k: v for k, v in checkpoint.params.tensors.items() if not k.startswith(("head.", "head_dist"))})


@pytest.mark.parametrize("config", [ASYMMETRIC, DISTILLED, TOKEN_AVERAGE], ids=["one", "two", "of token and mean"])
@pytest.mark.parametrize("classes", [7, 4])
def test_zero_puts_a_head_of_zeros_on_the_same_body(config, classes) -> None:
    before = canary_checkpoint(config)
    after = with_head(before, num_classes=classes, head="zero")
    assert after.config == config.replace(num_classes=classes)
    check_complete(after.params.shapes, after.config)
    assert_same_tensors(_body(after), _body(before))
    heads = [name for name in after.params if name.startswith("head")]
    assert len(heads) == (4 if config.distilled else 2)
    assert all(not after.params[name].any() and after.params[name].dtype == np.float32 for name in heads)
    assert after.labels == (before.labels if classes == 7 else None)
    said = f"changed: a head of {classes} classes and zeros in place of the head of 7 classes"
    assert after.provenance.notes[-1] == said


def test_zero_gives_features_a_head() -> None:
    after = with_head(canary_checkpoint(HEADLESS, np.float16), num_classes=3, head="zero")
    check_complete(after.params.shapes, HEADLESS.replace(num_classes=3))
    assert after.params["head.bias"].dtype == np.float16
    assert after.provenance.notes[-1].endswith("in place of none")


@pytest.mark.parametrize("config", [ASYMMETRIC, DISTILLED], ids=["one", "two"])
@pytest.mark.parametrize("classes", [None, 7, 4])
def test_drop_leaves_features(config, classes) -> None:
    before = canary_checkpoint(config)
    after = with_head(before, num_classes=classes, head="drop")
    assert after.config == config.replace(num_classes=0)
    assert_same_tensors(after.params, _body(before))
    assert after.labels is None
    assert after.provenance.notes[-1] == "changed: dropped the head of 7 classes"
    assert with_head(after, head="drop") is after


@pytest.mark.parametrize(("classes", "head"), [(None, None), (7, None), (None, "keep"), (7, "keep"), (4, "keep")])
def test_the_head_is_kept_as_it_is_and_nothing_is_told(classes, head) -> None:
    before = canary_checkpoint()
    assert with_head(before, num_classes=classes, head=head) is before


@pytest.mark.parametrize("classes", [0, 4])
def test_another_number_of_classes_needs_to_be_told_what_to_do(classes) -> None:
    with pytest.raises(VitportError, match=f"a head of 7 classes, not {classes}: choose with head"):
        with_head(canary_checkpoint(), num_classes=classes)


@pytest.mark.parametrize(("config", "classes"), [(ASYMMETRIC, 0), (ASYMMETRIC, -1), (HEADLESS, None)])
def test_a_head_without_classes_is_refused(config, classes) -> None:
    checkpoint = Checkpoint.of(config, canary_params(config))
    with pytest.raises(VitportError, match="is too small for a head"):
        with_head(checkpoint, num_classes=classes, head="zero")


def test_an_unknown_choice_lists_the_known() -> None:
    with pytest.raises(VitportError, match="choose one of keep, drop, zero"):
        with_head(canary_checkpoint(), head="new")  # type: ignore[arg-type]
