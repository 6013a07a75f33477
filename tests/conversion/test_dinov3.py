"""facebookresearch/dinov3's files: masks of biases, periods, and what only training reads.

Oracle: the code's own arithmetic, written down here: the bias is ``bias * bias_mask``, the angles ``2 pi x / period``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

import conversion
import vitport
from tests.conversion.canaries import assert_same_tensors
from tests.random_weights import random_params
from vit_spec import UnstatedError, ViTConfig, VitportError
from vit_spec.vit.rotary import DinoV3Rotary

CONFIG = ViTConfig(
    image_size=(96, 160), patch_size=32, num_classes=0, embed_dim=48, depth=2, num_heads=3, mlp_hidden_dim=56,
    layer_scale=1e-5, register_tokens=3, pos_embed="none", rotary=DinoV3Rotary(), norm_eps=1e-5, qkv_bias=False,
    qv_bias=True,
)  # fmt: skip
GATED = CONFIG.replace(mlp="swiglu", activation="silu", qv_bias=False)
WIDTH = CONFIG.embed_dim


def original(config: ViTConfig = CONFIG, **changes: torch.Tensor) -> dict[str, torch.Tensor]:
    """A state_dict as the authors' code has it."""
    gates = {"mlp.fc1_g": "mlp.w1", "mlp.fc1_x": "mlp.w2", "mlp.fc2": "mlp.w3"} if config.mlp == "swiglu" else {}
    names = {"reg_token": "storage_tokens"} | gates
    state = {"mask_token": torch.zeros(1, WIDTH), "rope_embed.periods": 100.0 ** (torch.arange(4) / 4)}
    params = {name: torch.tensor(it) for name, it in random_params(config, 1, np.float32).items()}
    for at in range(config.depth):
        block = f"blocks.{at}.attn"
        if config.qv_bias:
            q, v = params.pop(f"{block}.q_bias"), params.pop(f"{block}.v_bias")
            state[f"{block}.qkv.bias"] = torch.cat([q, torch.zeros(WIDTH), v])
            state[f"{block}.qkv.bias_mask"] = torch.tensor([1.0, 0.0, 1.0]).repeat_interleave(WIDTH)
    for name, tensor in params.items():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        state[name] = tensor
    return state | changes


def saved(folder: Path, state: dict[str, torch.Tensor]) -> Path:
    torch.save(state, folder / "dinov3.pth")
    return folder / "dinov3.pth"


@pytest.mark.parametrize("config", [CONFIG, GATED], ids=["plain", "gated"])
def test_every_fact_but_the_images_size_is_in_the_file(config: ViTConfig, tmp_path: Path) -> None:
    checkpoint = conversion.load(saved(tmp_path, original(config)))
    assert checkpoint.provenance.format == "dinov3"
    assert checkpoint.config == config.replace(image_size=224)
    expected = random_params(config, 1, np.float32)
    assert_same_tensors(checkpoint.params, expected)


@pytest.mark.parametrize("config", [CONFIG, GATED], ids=["plain", "gated"])
def test_there_and_back_is_the_identity(config: ViTConfig, tmp_path: Path) -> None:
    """By way of transformers' folder and the Flax tree, whose records do not hold the masks."""
    state = original(config)
    checkpoint = conversion.load(saved(tmp_path, state))
    for at, name in enumerate(("huggingface", "flax", "timm", "dinov3")):
        conversion.save(checkpoint, tmp_path / str(at), format=name)
        checkpoint = conversion.load(tmp_path / str(at))
    written = torch.load(tmp_path / "3", weights_only=True)
    assert set(written) == set(state)
    for name, tensor in state.items():
        assert torch.equal(written[name], tensor) or name == "rope_embed.periods", name
    # torch's power and Python's, rounded to float32, may differ in the last place.
    torch.testing.assert_close(written["rope_embed.periods"], state["rope_embed.periods"], rtol=2.0**-23, atol=0)


@pytest.mark.parametrize("to", ["huggingface", "timm", "flax", "dinov3"])
def test_a_conversion_is_verified(to: str, tmp_path: Path) -> None:
    done = vitport.convert(saved(tmp_path, original()), tmp_path / "out", to=to, verify=True)
    assert done.certificate is not None
    assert done.certificate.passed


def test_masks_multiply_their_biases(tmp_path: Path) -> None:
    """As LinearKMaskedBias does: what a mask hides is no bias, and is spoken of."""
    name = "blocks.0.attn.qkv.bias"
    state = original()
    state[name][WIDTH : 2 * WIDTH] = 7.0
    state[f"{name}_mask"][:5] = 0.0
    checkpoint = conversion.load(saved(tmp_path, state))
    masked = state[name] * state[f"{name}_mask"]
    assert (checkpoint.params["blocks.0.attn.q_bias"] == masked[:WIDTH].numpy()).all()
    assert (checkpoint.params["blocks.0.attn.v_bias"] == masked[2 * WIDTH :].numpy()).all()
    assert any("bias_mask hides" in note for note in checkpoint.provenance.notes)
    assert vitport.convert(tmp_path / "dinov3.pth", tmp_path / "out", to="huggingface", verify=True).certificate.passed


def test_a_mask_that_keeps_the_keys_keeps_their_bias(tmp_path: Path) -> None:
    masks = {f"blocks.{at}.attn.qkv.bias_mask": torch.ones(3 * WIDTH) for at in range(2)}
    state = original(**masks)
    checkpoint = conversion.load(saved(tmp_path, state))
    assert (checkpoint.config.qkv_bias, checkpoint.config.qv_bias) == (True, False)
    assert (checkpoint.params["blocks.1.attn.qkv.bias"] == state["blocks.1.attn.qkv.bias"].numpy()).all()
    conversion.save(checkpoint, tmp_path / "again", format="dinov3")
    assert (torch.load(tmp_path / "again")["blocks.1.attn.qkv.bias_mask"] == 1).all()


def test_masks_of_a_model_that_was_never_initialised_are_refused(tmp_path: Path) -> None:
    state = original(**{"blocks.1.attn.qkv.bias_mask": torch.full((3 * WIDTH,), torch.nan)})
    with pytest.raises(VitportError, match=r"blocks\.1\.attn\.qkv\.bias_mask holds other values than 0 and 1"):
        conversion.load(saved(tmp_path, state))


def test_rounded_periods_are_kept_and_other_formats_refuse_them(tmp_path: Path) -> None:
    """theta cannot give them back; the outputs would move by a thousandth."""
    periods = (100.0 ** (torch.arange(4) / 4)).bfloat16()
    checkpoint = conversion.load(saved(tmp_path, original(**{"rope_embed.periods": periods})))
    assert isinstance(checkpoint.config.rotary, DinoV3Rotary)
    assert checkpoint.config.rotary.periods == tuple(periods.double().tolist())
    with pytest.raises(VitportError, match="periods"):
        conversion.save(checkpoint, tmp_path / "no", format="huggingface")
    for name in ("dinov3", "flax"):
        conversion.save(checkpoint, tmp_path / name, format=name)
        assert conversion.load(tmp_path / name).config.rotary == checkpoint.config.rotary
    done = vitport.convert(tmp_path / "dinov3.pth", tmp_path / "proved", to="flax", verify=True)
    assert done.certificate is not None and done.certificate.passed


def test_theta_s_periods_are_written_by_request_and_the_change_is_verified(tmp_path: Path) -> None:
    """Everything but the periods is proven: the source runs with theta's too."""
    periods = (100.0 ** (torch.arange(4) / 4)).bfloat16()
    source = saved(tmp_path, original(**{"rope_embed.periods": periods}))
    with pytest.raises(VitportError, match="or add --periods theta"):
        vitport.convert(source, tmp_path / "no", to="huggingface-dinov3")
    done = vitport.convert(source, tmp_path / "out", to="huggingface-dinov3", periods="theta", verify=True)
    assert done.certificate is not None and done.certificate.passed
    assert any("periods of theta 100" in note for note in done.certificate.circumstances["changes"])
    with pytest.raises(VitportError, match="leave --periods out"):
        vitport.convert(tmp_path / "out", tmp_path / "again", to="timm", periods="theta")


def test_what_only_training_reads_is_set_aside(tmp_path: Path) -> None:
    """As in the files of the 7B model and of those for satellite images."""
    norm = {f"local_cls_norm.{leaf}": torch.ones(WIDTH) for leaf in ("weight", "bias")}
    checkpoint = conversion.load(saved(tmp_path, original(**norm)))
    assert any("local_cls_norm" in note for note in checkpoint.provenance.notes)


@pytest.mark.parametrize("periods", [[0.0, 1.0, 2.0, 3.0], [1.0, float("nan"), 2.0, 3.0], []])
def test_periods_that_are_no_numbers_cost_one_sentence(periods: list[float], tmp_path: Path) -> None:
    with pytest.raises(VitportError, match=r"rope_embed\.periods"):
        conversion.load(saved(tmp_path, original(**{"rope_embed.periods": torch.tensor(periods)})))


def test_a_file_in_timm_s_names_is_asked_for_what_no_tensor_shows(tmp_path: Path) -> None:
    """A guess would be no rotary positions at all, and a third of the features' size in error."""
    conversion.save(
        conversion.Checkpoint.of(CONFIG, random_params(CONFIG, 1, np.float32)), tmp_path / "a", format="timm"
    )
    state = {name: torch.tensor(np.asarray(it)) for name, it in load_file(tmp_path / "a").items()}
    assert {"blocks.0.gamma_1", "blocks.1.attn.q_bias"} <= set(state)
    facts = {"num_heads": 3, "activation": "gelu", "norm_eps": 1e-5, "pool": "token", "image_size": (96, 160)}
    with pytest.raises(UnstatedError, match="name the model"):
        conversion.load(saved(tmp_path, state), facts=facts)
    found = conversion.load(saved(tmp_path, state), facts=facts | {"rotary": {"kind": "dinov3"}})
    assert found.config == CONFIG
