from __future__ import annotations

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from jax.typing import DTypeLike

from conversion import Checkpoint, from_flax
from tests import numpy_reference
from tests.random_weights import random_images, random_params
from tests.small_configs import BASE, CONFIGS
from tests.vit_jax.models import nhwc
from vit_jax import VisionTransformer, create_model, get_params
from vit_spec import VitportError, get_model

pytestmark = pytest.mark.jax_alone

CONFIG = CONFIGS["distilled"]
PARAMS = random_params(CONFIG, 0, np.float32)
CHECKPOINT = Checkpoint.of(CONFIG, PARAMS)


def canonical(model: VisionTransformer) -> dict[str, np.ndarray]:
    return from_flax({path: np.asarray(array) for path, array in get_params(model).items()})


def test_name_gives_the_registered_config_with_overrides():
    model = nnx.eval_shape(
        lambda: create_model(
            "vit_tiny_patch16_224",
            num_classes=5,
            image_size=(32, 48),
            drop_rate=0.1,
            attn_drop_rate=0.2,
            drop_path_rate=0.3,
        )
    )
    expected = get_model("vit_tiny_patch16_224").config.replace(
        num_classes=5, image_size=(32, 48), drop_rate=0.1, attn_drop_rate=0.2, drop_path_rate=0.3
    )
    assert model.config == expected
    assert not model.deterministic
    assert model.head.out_features == 5


def test_config_is_taken_as_it_is_and_the_seed_decides_the_weights():
    config = CONFIGS["plain"]
    model, again, other = (
        create_model(config),
        create_model(config, rngs=nnx.Rngs(0)),
        create_model(config, rngs=nnx.Rngs(1)),
    )
    assert model.config == config
    assert all(np.array_equal(array, canonical(again)[name]) for name, array in canonical(model).items())
    assert not np.array_equal(model.head.kernel, other.head.kernel)


def test_dtypes_are_those_of_parameters_and_computation():
    model = nnx.eval_shape(lambda: create_model(BASE, dtype=jnp.bfloat16, param_dtype=jnp.float16))
    assert {array.dtype for array in get_params(model).values()} == {jnp.dtype("float16")}
    assert model.blocks[0].attn.qkv.dtype == jnp.bfloat16


def test_nothing_given_and_unknown_names_are_refused():
    with pytest.raises(VitportError, match="needs a model's name, a config, or weights="):
        create_model()
    with pytest.raises(VitportError, match=r"did you mean .*vit_tiny_patch16_224"):
        create_model("vit_tiny_patch16")


@pytest.mark.parametrize(("dtype", "atol"), [("float32", 1e-5), ("float64", 1e-12)])
def test_weights_give_the_model_that_they_are_of(dtype: str, atol: float):
    """Oracle: tests/numpy_reference.py."""
    images = random_images(CONFIG, 2, 0)
    with jax.enable_x64(dtype == "float64"):
        model = create_model(weights=CHECKPOINT, drop_rate=0.1, dtype=dtype, param_dtype=dtype)
        assert not model.deterministic
        assert model.config == CONFIG.replace(drop_rate=0.1)
        assert {array.dtype for array in get_params(model).values()} == {jnp.dtype(dtype)}
        model.eval()
        actual = np.asarray(model(nhwc(images, dtype)))
    exact = numpy_reference.forward(CONFIG, {name: array.astype(np.float64) for name, array in PARAMS.items()}, images)
    np.testing.assert_allclose(actual, exact, rtol=0, atol=atol)


def test_weights_are_not_initialised_before_they_are_loaded(monkeypatch: pytest.MonkeyPatch):
    """Oracle: a count of the random arrays that are really drawn."""
    drawn: list[jax.Array] = []
    normal = nnx.initializers.normal

    def counting(std: float) -> nnx.Initializer:
        def draw(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike) -> jax.Array:
            result = normal(std)(key, shape, dtype)
            if not isinstance(result, jax.core.Tracer):
                drawn.append(result)
            return result

        return draw

    monkeypatch.setattr(nnx.initializers, "normal", counting)
    create_model(weights=CHECKPOINT)
    assert not drawn
    create_model(weights=CHECKPOINT, num_classes=3)
    assert len(drawn) == 2  # a kernel for each head


def test_bfloat16_weights_keep_their_values():
    rounded = {name: array.astype(ml_dtypes.bfloat16) for name, array in PARAMS.items()}
    model = create_model(weights=Checkpoint.of(CONFIG, rounded))
    for name, array in canonical(model).items():
        assert array.dtype == np.float32
        assert array.tolist() == rounded[name].astype(np.float32).tolist(), name


def test_another_number_of_classes_gives_fresh_heads_and_keeps_the_rest():
    params = canonical(create_model(weights=CHECKPOINT, num_classes=200, rngs=nnx.Rngs(7)))
    for name, array in PARAMS.items():
        if not name.startswith("head"):
            assert np.array_equal(params[name], array), name
    for head in ("head", "head_dist"):
        assert params[f"{head}.weight"].shape == (200, CONFIG.embed_dim)
        assert abs(params[f"{head}.weight"].std() / 0.01 - 1) < 0.05  # 4800 draws: 4 standard errors are 0.04
        assert not params[f"{head}.bias"].any()


def test_the_same_number_of_classes_keeps_the_head_and_none_drops_it():
    same = canonical(create_model(weights=CHECKPOINT, num_classes=CONFIG.num_classes))
    assert np.array_equal(same["head.weight"], PARAMS["head.weight"])
    assert not [name for name in canonical(create_model(weights=CHECKPOINT, num_classes=0)) if "head" in name]


def test_another_image_size_gives_a_resized_position_table():
    model = create_model(weights=CHECKPOINT, image_size=(16, 8))
    table = canonical(model)["pos_embed"]
    assert table.shape == (1, 2 + 4 * 2, CONFIG.embed_dim)
    assert np.array_equal(table[:, :2], PARAMS["pos_embed"][:, :2])
    assert model.embed(jnp.zeros((1, 16, 8, 3))).shape == (1, 2 + 4 * 2, CONFIG.embed_dim)


def test_weights_that_do_not_fit_are_refused_with_all_their_faults():
    broken = {name: array for name, array in PARAMS.items() if name not in ("cls_token", "head.bias")}
    broken["blocks.0.norm1.weight"] = np.ones(5)
    broken["head.wait"] = np.ones(5)
    with pytest.raises(VitportError) as caught:
        create_model(weights=Checkpoint.of(CONFIG, broken))
    for part in ("cls_token", "head.bias", "blocks.0.norm1.weight", "head.wait"):
        assert part in str(caught.value)


def test_weights_without_a_head_are_refused_unless_a_new_head_is_asked_for():
    """Otherwise a file that lost its head would answer at random."""
    headless = Checkpoint.of(CONFIG, {name: array for name, array in PARAMS.items() if not name.startswith("head")})
    with pytest.raises(VitportError, match="head"):
        create_model(weights=headless)
    assert create_model(weights=headless, num_classes=3).config.num_classes == 3
