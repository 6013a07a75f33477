"""Options shown by the presence of parameters. Oracle: the configs that the parameters were listed for."""

from __future__ import annotations

import pytest

from tests.small_configs import SWIN_CONFIGS
from vit_spec import parameters
from vit_spec.swin.models import MODELS
from vit_spec.swin.presence import shown_options

CONFIGS = SWIN_CONFIGS | {model.name: model.config for model in MODELS}


@pytest.mark.parametrize("name", CONFIGS)
def test_every_option_that_adds_parameters_is_seen(name: str) -> None:
    config = CONFIGS[name]
    expected = {field: value for field, value in config.to_dict().items() if isinstance(value, bool)}
    assert shown_options(parameter.name for parameter in parameters(config)) == expected
