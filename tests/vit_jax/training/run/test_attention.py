"""Which kernel a run takes. Oracle: what the kernels' documentation says that they need."""

from __future__ import annotations

import re

import pytest

from vit_jax.layers.xla import short_attention
from vit_jax.training.run.attention import check_kernel, choose_attention
from vit_spec import VitportError, get_model

VIT = get_model("vit_small_patch16_224").config
BEIT = get_model("beitv2_base_patch16_224").config
SWIN = get_model("swin_tiny_patch4_window7_224").config


@pytest.mark.parametrize(
    ("platform", "precision", "model", "chosen"),
    [
        ("gpu", "bfloat16", VIT, "cudnn"),
        ("gpu", "float32", VIT, "fused"),  # cuDNN computes in 16 bits
        ("gpu", "bfloat16", SWIN, "fused"),  # its bias would be repeated for every window
        ("gpu", "bfloat16", VIT.replace(embed_dim=6 * 132), "fused"),  # 132 wide
        ("gpu", "bfloat16", VIT.replace(attn_drop_rate=0.1), "fused"),
        ("tpu", "bfloat16", VIT, "flash"),
        ("tpu", "float32", VIT, "fused"),
        ("tpu", "bfloat16", VIT.replace(image_size=(384, 384), embed_dim=768), "fused"),  # more than the chip holds
        ("tpu", "bfloat16", VIT.replace(embed_dim=6 * 132), "fused"),
        ("tpu", "bfloat16", VIT.replace(attn_drop_rate=0.1), "fused"),
        ("tpu", "bfloat16", BEIT, "fused"),  # biases are added to its logits
        ("tpu", "bfloat16", SWIN, "fused"),
        ("tpu", "bfloat16", VIT.replace(image_size=(512, 512)), "flash"),  # 1,025 tokens
        ("tpu", "float32", VIT.replace(image_size=(512, 512)), "flash"),
        ("tpu", "bfloat16", VIT.replace(image_size=(512, 512), embed_dim=6 * 132), "fused"),
        ("cpu", "float32", VIT.replace(image_size=(512, 512)), "fused"),
        ("cpu", "float32", VIT, "fused"),
    ],
)
def test_auto_takes_what_the_device_has(platform, precision, model, chosen) -> None:
    assert choose_attention("auto", model, platform, precision) == chosen


@pytest.mark.parametrize(
    ("attention", "platform", "model", "sentence"),
    [
        ("cudnn", "tpu", VIT, "the device is a tpu, precision is float32"),
        ("cudnn", "gpu", VIT.replace(embed_dim=6 * 12), "precision is float32, the head width is 12"),
        ("flash", "gpu", VIT, "attention=flash needs a TPU"),
        ("flash", "tpu", VIT.replace(embed_dim=6 * 132), "the head width is 132: choose auto or fused"),
    ],
)
def test_a_kernel_that_cannot_be_is_refused(attention, platform, model, sentence) -> None:
    with pytest.raises(VitportError, match=re.escape(sentence)):
        choose_attention(attention, model, platform, "float32")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_kernel_that_gives_what_it_should_is_taken(precision) -> None:
    check_kernel("flash", VIT.replace(image_size=(64, 96)), precision)
    check_kernel("flash", VIT.replace(image_size=(64, 96), embed_dim=192, num_heads=2), precision)


@pytest.mark.parametrize("fault", ["keys and values", "the next head's columns"])
def test_a_kernel_that_gives_something_else_is_refused(fault, monkeypatch) -> None:
    """In bfloat16, as a compiler's fault would: 0.9 and more of the largest value."""
    parts = short_attention._parts
    faults = {
        "keys and values": lambda width, own: [parts(width, own)[at] for at in (0, 2, 1)],
        "the next head's columns": lambda width, own: parts(width, slice(64 - own.start, 128 - own.start)),
    }
    monkeypatch.setattr(short_attention, "_parts", faults[fault])
    with pytest.raises(VitportError, match="attention=flash does not give what the written attention does on this"):
        check_kernel("flash", VIT.replace(image_size=(64, 96), embed_dim=128, num_heads=2), "bfloat16")
