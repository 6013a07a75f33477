"""Options shown by the presence of parameters. Oracle: the configs that the parameters were listed for."""

from __future__ import annotations

import pytest

from tests.small_configs import COMBINATIONS, CONFIGS
from vit_spec import ViTConfig, parameters
from vit_spec.vit.models import MODELS
from vit_spec.vit.presence import shown_options

WITHOUT_PARAMETERS = {"pool_prefix", "scale_attention_only"}
"""Options that add none."""


def options(config: ViTConfig) -> dict[str, bool]:
    """All but ``mlp_bias``, which is usually ``None``."""
    return {name: value for name, value in config.to_dict().items() if isinstance(value, bool) and name != "mlp_bias"}


@pytest.mark.parametrize("config", [*CONFIGS.values(), *COMBINATIONS.values()], ids=[*CONFIGS, *COMBINATIONS])
def test_every_option_that_adds_parameters_is_seen(config: ViTConfig) -> None:
    expected = {name: value for name, value in options(config).items() if name not in WITHOUT_PARAMETERS}
    assert shown_options(parameter.name for parameter in parameters(config)) == expected


def test_it_holds_for_every_registered_model() -> None:
    for model in MODELS:
        shown = shown_options(parameter.name for parameter in parameters(model.config))
        assert shown == {name: options(model.config)[name] for name in shown}, model.name


def test_one_block_without_it_is_a_missing_tensor_and_no_other_model() -> None:
    names = [parameter.name for parameter in parameters(ViTConfig(depth=3, mlp_norm=True))]
    names.remove("blocks.0.mlp.norm.weight")
    assert shown_options(names)["mlp_norm"]
