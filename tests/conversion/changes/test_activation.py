"""The two forms of GELU. Oracle: the config, and the tensors that went in."""

from __future__ import annotations

import pytest

from conversion import with_activation
from tests.conversion.canaries import ASYMMETRIC, assert_same_tensors, canary_checkpoint
from vit_spec import VitportError


@pytest.mark.parametrize(
    ("before", "choice", "after"),
    [("gelu", "tanh", "gelu_tanh"), ("gelu_tanh", "erf", "gelu")],
)
def test_the_other_form_takes_the_place_and_is_told(before, choice, after) -> None:
    old = canary_checkpoint(ASYMMETRIC.replace(activation=before))
    new = with_activation(old, choice)
    assert new.config == old.config.replace(activation=after)
    assert_same_tensors(new.params, old.params)
    assert new.provenance.notes == (f"changed: activation {after} in place of {before}, with the weights as they are",)


@pytest.mark.parametrize(
    ("activation", "choice"),
    [("gelu", "erf"), ("gelu_tanh", "tanh"), ("gelu", "keep"), ("silu", "keep"), ("quick_gelu", "keep")],
)
def test_what_is_so_already_stays_and_nothing_is_told(activation, choice) -> None:
    checkpoint = canary_checkpoint(ASYMMETRIC.replace(activation=activation))
    assert with_activation(checkpoint, choice) is checkpoint


@pytest.mark.parametrize(("activation", "choice"), [("silu", "erf"), ("quick_gelu", "tanh"), ("gelu", "exact")])
def test_no_other_activation_is_taken_for_a_gelu(activation, choice) -> None:
    with pytest.raises(VitportError, match=f"cannot replace {activation}: erf and tanh are"):
        with_activation(canary_checkpoint(ASYMMETRIC.replace(activation=activation)), choice)
