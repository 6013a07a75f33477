from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import torch

from conversion import Checkpoint
from tests import numpy_reference
from tests.random_weights import random_images, random_params
from tests.small_configs import BASE, CONFIGS
from vit_spec import VitportError, get_model
from vit_torch import create_model

CONFIG = CONFIGS["distilled"]
PARAMS = random_params(CONFIG, 0, np.float32)
CHECKPOINT = Checkpoint.of(CONFIG, PARAMS)


def test_name_gives_the_registered_config_with_overrides():
    model = create_model(
        "vit_tiny_patch16_224",
        num_classes=5,
        image_size=(32, 48),
        drop_rate=0.1,
        attn_drop_rate=0.2,
        drop_path_rate=0.3,
    )
    expected = get_model("vit_tiny_patch16_224").config.replace(
        num_classes=5, image_size=(32, 48), drop_rate=0.1, attn_drop_rate=0.2, drop_path_rate=0.3
    )
    assert model.config == expected
    assert model.training
    assert model.head.out_features == 5


def test_config_is_taken_as_it_is():
    assert create_model(BASE).config is not None
    assert create_model(BASE).config == BASE
    assert create_model(BASE, num_classes=0).config == BASE.replace(num_classes=0)


def test_dtype_is_that_of_every_parameter():
    assert {parameter.dtype for parameter in create_model(BASE).parameters()} == {torch.float32}
    for dtype in (torch.bfloat16, "bfloat16"):
        assert {parameter.dtype for parameter in create_model(BASE, dtype=dtype).parameters()} == {torch.bfloat16}
    for name in ("int32", "manual_seed", "half-precision"):
        with pytest.raises(VitportError, match=f"dtype='{name}' is not a float type of PyTorch"):
            create_model(BASE, dtype=name)


def test_nothing_given_and_unknown_names_are_refused():
    with pytest.raises(VitportError, match="needs a model's name, a config, or weights="):
        create_model()
    with pytest.raises(VitportError, match=r"did you mean .*vit_tiny_patch16_224"):
        create_model("vit_tiny_patch16")


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_weights_give_the_model_that_they_are_of(dtype: torch.dtype, atol: float):
    """Oracle: tests/numpy_reference.py."""
    model = create_model(weights=CHECKPOINT, drop_rate=0.1, dtype=dtype)
    assert model.training
    assert model.config == CONFIG.replace(drop_rate=0.1)
    assert all(parameter.requires_grad and parameter.dtype == dtype for parameter in model.parameters())
    images = random_images(CONFIG, 2, 0)
    exact = numpy_reference.forward(CONFIG, {name: array.astype(np.float64) for name, array in PARAMS.items()}, images)
    actual = model.eval()(torch.tensor(images, dtype=dtype)).detach().numpy()
    np.testing.assert_allclose(actual, exact, rtol=0, atol=atol)


def test_weights_are_copied():
    arrays = {name: array.copy() for name, array in PARAMS.items()}
    model = create_model(weights=Checkpoint.of(CONFIG, arrays))
    arrays["head.bias"][:] = 100
    assert model.head.bias.tolist() == PARAMS["head.bias"].tolist()


def test_bfloat16_weights_keep_their_values():
    rounded = {name: array.astype(ml_dtypes.bfloat16) for name, array in PARAMS.items()}
    model = create_model(weights=Checkpoint.of(CONFIG, rounded))
    for name, tensor in model.state_dict().items():
        assert tensor.tolist() == rounded[name].astype(np.float32).tolist(), name


def test_another_number_of_classes_gives_fresh_heads_and_keeps_the_rest():
    torch.manual_seed(0)
    state = create_model(weights=CHECKPOINT, num_classes=200).state_dict()
    for name, array in PARAMS.items():
        if not name.startswith("head"):
            assert np.array_equal(state[name], array), name
    for head in ("head", "head_dist"):
        assert state[f"{head}.weight"].shape == (200, CONFIG.embed_dim)
        assert abs(state[f"{head}.weight"].std().item() / 0.01 - 1) < 0.05  # 4800 draws: 4 standard errors are 0.04
        assert not state[f"{head}.bias"].any()


def test_the_same_number_of_classes_keeps_the_head_and_none_drops_it():
    same = create_model(weights=CHECKPOINT, num_classes=CONFIG.num_classes).state_dict()
    assert np.array_equal(same["head.weight"], PARAMS["head.weight"])
    assert not [name for name in create_model(weights=CHECKPOINT, num_classes=0).state_dict() if "head" in name]


def test_another_image_size_gives_a_resized_position_table():
    model = create_model(weights=CHECKPOINT, image_size=(16, 8))
    assert model.pos_embed is not None
    assert model.pos_embed.shape == (1, 2 + 4 * 2, CONFIG.embed_dim)
    assert np.array_equal(model.pos_embed[:, :2].detach(), PARAMS["pos_embed"][:, :2])
    assert model(torch.zeros(1, 3, 16, 8))[0].shape == (1, CONFIG.num_classes)


def test_weights_that_do_not_fit_are_refused_with_all_their_faults():
    broken = {name: array for name, array in PARAMS.items() if name not in ("cls_token", "head.bias")}
    broken["blocks.0.norm1.weight"] = np.ones(5)
    broken["head.wait"] = np.ones(5)
    with pytest.raises(VitportError) as caught:
        create_model(weights=Checkpoint.of(CONFIG, broken))
    for part in ("cls_token", "head.bias", "blocks.0.norm1.weight", "head.wait"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_without_a_head_are_refused_unless_a_new_head_is_asked_for():
    """Otherwise a file that lost its head would answer at random."""
    headless = Checkpoint.of(CONFIG, {name: array for name, array in PARAMS.items() if not name.startswith("head")})
    with pytest.raises(VitportError, match="head"):
        create_model(weights=headless)
    assert create_model(weights=headless, num_classes=3).config.num_classes == 3
