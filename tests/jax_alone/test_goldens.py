"""vit_jax on any jax, without torch. Oracle: goldens.npz, the answers of vit_torch in float64."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from conversion import from_flax
from tests.jax_alone.golden_models import GOLDENS, MODELS, Question
from tests.vit_jax.models import jax_model, nhwc, quick_jit
from vit_jax import get_params
from vit_spec import ViTConfig

pytestmark = pytest.mark.jax_alone


def _golden(name: str) -> tuple[ViTConfig, dict[str, np.ndarray]]:
    stored = np.load(GOLDENS, allow_pickle=False)
    arrays = {key.partition("/")[2]: stored[key] for key in stored if key.startswith(f"{name}/")}
    return ViTConfig.from_json(str(arrays.pop("config"))), arrays


def _answer(config: ViTConfig, dtype: str) -> dict[str, np.ndarray]:
    """What make_goldens.py asks of vit_torch, asked of vit_jax."""
    question = Question(config)
    model = jax_model(config, question.params, dtype)
    model.eval()
    graphdef, state = nnx.split(model)

    def loss(state, images):
        output = nnx.merge(graphdef, state)(images)
        return jnp.sum(output**2), output

    by, output = quick_jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(state, nhwc(question.images, dtype))
    assert output.dtype == dtype
    gradients = from_flax({path: np.asarray(array) for path, array in get_params(nnx.merge(graphdef, by[0])).items()})
    return {
        "output": np.asarray(output),
        "image_gradient": np.asarray(by[1]).transpose(0, 3, 1, 2),
        **question.measure({name: gradients[name] for name in question.params}),
    }


def _errors(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> dict[str, float]:
    """Relative errors: of output and image's gradient by their norms, of each parameter by its gradient's norm."""
    assert actual.keys() == expected.keys()
    whole = {
        key: float(np.linalg.norm(actual[key] - expected[key]) / np.linalg.norm(expected[key]))
        for key in ("output", "image_gradient")
    }
    norms = expected["norms"]
    return whole | {key: float(np.max(np.abs(actual[key] - expected[key]) / norms)) for key in ("norms", "projections")}


@pytest.mark.parametrize("name", MODELS)
def test_float64_outputs_and_gradients_are_those_of_torch(name, record_property) -> None:
    """Measured at most 5.1e-15, some tens of roundings of 1.1e-16. Asserted: 1e-12, for machines unlike this one."""
    config, expected = _golden(name)
    with jax.enable_x64(True):
        errors = _errors(_answer(config, "float64"), expected)
    record_property("errors", errors)
    assert max(errors.values()) < 1e-12, errors


@pytest.mark.parametrize("name", ["plain", "registers"])
def test_float32_outputs_and_gradients_are_within_rounding(name, record_property) -> None:
    """Measured at most 1.5e-6, some tens of roundings of 6e-8. Asserted: 1e-5."""
    config, expected = _golden(name)
    errors = _errors(_answer(config, "float32"), expected)
    record_property("errors", errors)
    assert max(errors.values()) < 1e-5, errors
