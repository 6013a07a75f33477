"""A Swin Transformer by its file's own names, over all options.

Oracle: vit_torch in float64, which shares none of the code. Tolerance 1e-12 of the largest value: float64 rounding,
measured at most 7e-16.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

import conversion
import vit_torch
from tests.conversion.swin.models import BASE, checkpoint, images, outputs, relative, weights
from tests.small_configs import SWIN_CONFIGS
from vit_parity.semantics import semantics_of_file
from vit_spec import SwinConfig

TOLERANCE = 1e-12


def torch_output(config: SwinConfig, params: dict[str, np.ndarray]) -> np.ndarray:
    model = vit_torch.create_model(config).double().eval()
    model.load_state_dict({name: torch.tensor(array) for name, array in params.items()})
    with torch.no_grad():
        return model(torch.tensor(images(config)).permute(0, 3, 1, 2)).numpy()


@pytest.mark.parametrize("name", SWIN_CONFIGS)
def test_every_option_means_what_the_models_compute(name, tmp_path) -> None:
    config = SWIN_CONFIGS[name]
    conversion.save(checkpoint(config), tmp_path / "w", format="timm")
    assert relative(outputs(tmp_path / "w", config)["head"], torch_output(config, weights(config))) <= TOLERANCE


def test_rounding_activation_and_head_can_be_those_of_the_conversion(tmp_path) -> None:
    conversion.save(checkpoint(BASE), tmp_path / "w", format="timm")
    half = {name: array.astype(np.float16).astype(np.float64) for name, array in weights(BASE).items()}
    tanh, features = BASE.replace(activation="gelu_tanh"), BASE.replace(num_classes=0)
    body = {name: array for name, array in weights(BASE).items() if not name.startswith("head.")}
    for options, config, params in (
        ({"dtype": np.dtype(np.float16)}, BASE, half),
        ({"activation": "gelu_tanh"}, tanh, weights(BASE)),
        ({"head": False}, features, body),
    ):
        found = semantics_of_file(tmp_path / "w", BASE, **options).run(images(BASE))["head"]
        assert relative(found, torch_output(config, params)) <= TOLERANCE
