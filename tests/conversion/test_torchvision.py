"""torchvision's names and ``torch.nn.TransformerEncoder``. Oracle: models put together here out of torch.nn's parts.

torchvision does not load beside every torch, so its module tree is written down here, name by name. float64; the
tolerance of 1e-12 is rounding over some thousand additions in eleven blocks, measured at most 5e-16.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import conversion
import vitport
from tests.conversion.canaries import assert_same_tensors
from tests.conversion.test_huggingface_writing import ours
from vit_spec import ViTConfig, VitportError

CONFIG = ViTConfig(
    image_size=(12, 12),
    patch_size=4,
    num_classes=5,
    embed_dim=24,
    depth=11,
    num_heads=3,
    mlp_hidden_dim=40,
    representation_size=10,
)


class _Block(nn.Module):
    def __init__(self, c: ViTConfig) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(c.embed_dim, 1e-6)
        self.self_attention = nn.MultiheadAttention(c.embed_dim, c.num_heads, batch_first=True)
        self.ln_2 = nn.LayerNorm(c.embed_dim, 1e-6)
        self.mlp = nn.Sequential(
            nn.Linear(c.embed_dim, c.hidden_dim), nn.GELU(), nn.Dropout(0), nn.Linear(c.hidden_dim, c.embed_dim)
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.ln_1(x)
        x = x + self.self_attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class Torchvision(nn.Module):
    """torchvision.models.VisionTransformer's tree and forward pass."""

    def __init__(self, c: ViTConfig) -> None:
        super().__init__()
        self.conv_proj = nn.Conv2d(3, c.embed_dim, c.patch_size, c.patch_size)
        self.class_token = nn.Parameter(torch.zeros(1, 1, c.embed_dim))
        self.encoder = nn.Module()
        self.encoder.pos_embedding = nn.Parameter(torch.zeros(1, c.num_tokens, c.embed_dim))
        layers = OrderedDict((f"encoder_layer_{i}", _Block(c)) for i in range(c.depth))
        self.encoder.layers = nn.Sequential(layers)
        self.encoder.ln = nn.LayerNorm(c.embed_dim, 1e-6)
        self.heads = nn.Sequential(
            OrderedDict(
                pre_logits=nn.Linear(c.embed_dim, c.representation_size or 1),
                act=nn.Tanh(),
                head=nn.Linear(c.representation_size or 1, c.num_classes),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_proj(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_token.expand(len(x), -1, -1), x], 1) + self.encoder.pos_embedding
        return self.heads(self.encoder.ln(self.encoder.layers(x))[:, 0])


class Encoder(nn.Module):
    """A user's ViT around torch.nn.TransformerEncoder, the other parts under canonical names."""

    def __init__(self, c: ViTConfig, *, bias: bool = True, norm_first: bool = True) -> None:
        super().__init__()
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, c.embed_dim, c.patch_size, c.patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, c.embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, c.num_tokens, c.embed_dim))
        layer = nn.TransformerEncoderLayer(
            c.embed_dim, c.num_heads, c.hidden_dim, 0.0, "relu", 1e-5, True, norm_first, bias=bias
        )
        norm = nn.LayerNorm(c.embed_dim, 1e-5, bias=bias)
        self.encoder = nn.TransformerEncoder(layer, c.depth, norm, enable_nested_tensor=False)
        self.head = nn.Linear(c.embed_dim, c.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed.proj(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
        return self.head(self.encoder(x)[:, 0])


def _randomised(model: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    for parameter in model.double().eval().parameters():
        scale = parameter[0].numel() ** -0.5 if parameter.ndim in (2, 4) else 0.5
        parameter.data = torch.randn_like(parameter) * scale
    return model


X = torch.randn(2, 3, 12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def test_a_torchvision_file_gives_torchvisions_numbers_and_goes_back_bit_for_bit(tmp_path: Path) -> None:
    theirs = _randomised(Torchvision(CONFIG))
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    checkpoint = conversion.load(tmp_path / "theirs.pth", model=CONFIG)
    assert checkpoint.provenance.format == "torchvision"
    assert checkpoint.config == CONFIG.replace(pos_embed_resize="torch-bicubic-corners")
    torch.testing.assert_close(ours(checkpoint, X), theirs(X), rtol=1e-12, atol=1e-12)
    conversion.save(checkpoint, tmp_path / "ours.pth", format="torchvision")
    state = torch.load(tmp_path / "ours.pth", weights_only=True)
    assert set(state) == set(theirs.state_dict())
    assert all(torch.equal(state[name], tensor) for name, tensor in theirs.state_dict().items())
    fresh = Torchvision(CONFIG).double().eval()
    fresh.load_state_dict(state)
    assert torch.equal(fresh(X), theirs(X))


def test_our_own_pytorch_file_says_itself_what_the_shapes_do_not(tmp_path: Path) -> None:
    torch.save(Torchvision(CONFIG).state_dict(), tmp_path / "theirs.pth")
    with pytest.raises(VitportError, match="does not say its num_heads"):
        conversion.load(tmp_path / "theirs.pth")
    checkpoint = conversion.load(tmp_path / "theirs.pth", model=CONFIG)
    conversion.save(checkpoint, tmp_path / "ours.pth", format="torchvision")
    again = conversion.load(tmp_path / "ours.pth")
    assert again.config == checkpoint.config
    assert_same_tensors(again.params, checkpoint.params)


@pytest.mark.parametrize("head", ["heads.head", "heads", "heads.0"])
def test_names_before_2022_and_heads_of_the_users_own_are_read(tmp_path: Path, head: str) -> None:
    state = _randomised(Torchvision(CONFIG)).state_dict()
    plain = {name: tensor for name, tensor in state.items() if "heads." not in name}
    old = {name.replace("mlp.0", "mlp.linear_1").replace("mlp.3", "mlp.linear_2"): t for name, t in plain.items()}
    weight, bias = torch.randn(5, 24), torch.randn(5)
    torch.save(old | {f"{head}.weight": weight, f"{head}.bias": bias}, tmp_path / "old.pth")
    params = conversion.load(tmp_path / "old.pth", model=CONFIG.replace(representation_size=None)).params
    assert (params["head.weight"] == weight.numpy()).all()
    assert (params["blocks.10.mlp.fc1.weight"] == state["encoder.layers.encoder_layer_10.mlp.0.weight"].numpy()).all()
    assert (params["blocks.2.mlp.fc2.bias"] == state["encoder.layers.encoder_layer_2.mlp.3.bias"].numpy()).all()


def test_a_stem_of_convolutions_is_refused_by_name(tmp_path: Path) -> None:
    state = Torchvision(CONFIG).state_dict() | {"conv_proj.conv_last.weight": torch.zeros(24, 8, 1, 1)}
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(VitportError, match="a stem of several convolutions"):
        conversion.load(tmp_path / "w.pth", model=CONFIG)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"activation": "gelu_tanh"}, "activation='gelu_tanh'"),
        ({"norm_eps": 1e-5}, "norm_eps=1e-05"),
        ({"image_size": (12, 20)}, "images of 12x20 pixels"),
        ({"qk_norm": True}, "qk_norm=True"),
    ],
)
def test_what_torchvision_cannot_hold_is_named(tmp_path: Path, changes: dict, words: str) -> None:
    from tests.conversion.canaries import canary_params

    config = CONFIG.replace(**changes)
    with pytest.raises(VitportError, match=f"torchvision cannot hold {words}"):
        conversion.save(
            conversion.Checkpoint.of(config, canary_params(config)), tmp_path / "w.pth", format="torchvision"
        )


@torch.no_grad()
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("attribute", ["encoder.", "transformer.", "net.encoder."])
def test_a_transformer_encoder_with_canonical_names_beside_is_read_and_written(tmp_path, attribute, bias) -> None:
    config = CONFIG.replace(representation_size=None, activation="relu", norm_eps=1e-5, norm="layernorm")
    theirs = _randomised(Encoder(config, bias=bias))
    beside = attribute.removesuffix("encoder.").removesuffix("transformer.")
    state = {
        name.replace("encoder.", attribute) if "encoder." in name else beside + name: tensor
        for name, tensor in theirs.state_dict().items()
    }
    torch.save(state, tmp_path / "theirs.pth")
    checkpoint = conversion.load(tmp_path / "theirs.pth", model=config, norm_first=True)
    assert checkpoint.provenance.format == "torch-encoder"
    assert checkpoint.provenance.origins["block"] == "norm_first=True, as given"
    torch.testing.assert_close(ours(checkpoint, X), theirs(X), rtol=1e-12, atol=1e-12)
    conversion.save(checkpoint, tmp_path / "ours.pth", format="torch-encoder")
    fresh = Encoder(config, bias=bias).double().eval()
    fresh.load_state_dict(torch.load(tmp_path / "ours.pth", weights_only=True))
    assert torch.equal(fresh(X), theirs(X))


def test_an_encoder_alone_is_no_vision_transformer(tmp_path: Path) -> None:
    torch.save(Encoder(CONFIG).encoder.state_dict(), tmp_path / "w.pth")
    with pytest.raises(VitportError, match=r"not a Vision Transformer's: patch_embed\.proj\.weight is missing"):
        conversion.load(tmp_path / "w.pth", model=CONFIG, norm_first=True)


def test_the_order_that_no_name_shows_is_asked_for(tmp_path: Path, capsys) -> None:
    """Both orders have the same names and shapes; by each, torch.nn gives other numbers, and so do both models."""
    from vit_cli.main import main

    config = CONFIG.replace(representation_size=None, activation="relu", norm_eps=1e-5)
    post, pre = (_randomised(Encoder(config, norm_first=first)) for first in (False, True))
    assert {k: v.shape for k, v in post.state_dict().items()} == {k: v.shape for k, v in pre.state_dict().items()}
    pre.load_state_dict(post.state_dict())
    assert (pre(X) - post(X)).abs().max() > 0.1
    file = tmp_path / "post.pth"
    torch.save(post.state_dict(), file)
    for load in (conversion.load, vitport.load):
        with pytest.raises(VitportError, match="say how the module was built with norm_first"):
            load(file, model=config)
        for norm_first, theirs in ((False, post), (True, pre)):
            checkpoint = load(file, model=config, norm_first=norm_first)
            torch.testing.assert_close(ours(checkpoint, X), theirs(X), rtol=1e-12, atol=1e-12)
    out = ["convert", str(file), str(tmp_path / "out"), "--to", "timm", "--model", "vit_tiny_patch16_224", "--verify"]
    assert main(out) == 2
    assert "--norm-first true, or false" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@torch.no_grad()
@pytest.mark.parametrize(
    ("bias", "final"),
    [
        (True, True),
        (False, False),
        pytest.param(True, False, marks=pytest.mark.slow),
        pytest.param(False, True, marks=pytest.mark.slow),
    ],
)
def test_an_encoder_in_the_original_order_goes_there_and_back(tmp_path: Path, bias: bool, final: bool) -> None:
    """Oracle: the module itself; with and without a last norm, which PyTorch's encoder lacks unless it is given."""
    config = CONFIG.replace(
        representation_size=None, activation="relu", norm_eps=1e-5, final_norm="tokens" if final else "none"
    )
    theirs = _randomised(Encoder(config, bias=bias, norm_first=False))
    if not final:
        theirs.encoder.norm = None
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    done = vitport.convert(
        tmp_path / "theirs.pth", tmp_path / "a.safetensors", to="timm", model=config, norm_first=False, verify=True
    )
    assert done.certificate is not None
    assert done.certificate.passed
    again = conversion.load(tmp_path / "a.safetensors")
    assert again.config.block == "original"
    torch.testing.assert_close(ours(again, X), theirs(X), rtol=1e-12, atol=1e-12)
    conversion.convert(tmp_path / "a.safetensors", tmp_path / "back.pth", to="torch-encoder")
    state = torch.load(tmp_path / "back.pth", weights_only=True)
    assert set(state) == set(theirs.state_dict())
    assert all(torch.equal(state[name], tensor) for name, tensor in theirs.state_dict().items())
    for norm_first in (False, None):
        assert conversion.load(tmp_path / "back.pth", norm_first=norm_first).config.block == "original"
    with pytest.raises(VitportError, match=r"norm_first=True .* contradicts .* normalise the sums after their layers"):
        conversion.load(tmp_path / "back.pth", norm_first=True)
    for format in ("huggingface", "torchvision", "google"):
        with pytest.raises(VitportError, match="block='original'"):
            conversion.save(again, tmp_path / "no", format=format)


def test_our_own_file_says_the_order_itself(tmp_path: Path) -> None:
    config = CONFIG.replace(representation_size=None, activation="relu", norm_eps=1e-5)
    torch.save(_randomised(Encoder(config)).state_dict(), tmp_path / "theirs.pth")
    done = vitport.convert(
        tmp_path / "theirs.pth", tmp_path / "ours.pth", to="torch-encoder", model=config, norm_first=True, verify=True
    )
    assert done.certificate is not None
    assert done.certificate.passed
    assert done.certificate.to_dict()["origins"]["block"] == "norm_first=True, as given"
    assert conversion.load(tmp_path / "ours.pth").config.block == "sequential"
    assert conversion.load(tmp_path / "ours.pth", norm_first=True).config.block == "sequential"
    with pytest.raises(VitportError, match="contradicts what is known of the file"):
        conversion.load(tmp_path / "ours.pth", norm_first=False)


def test_an_order_against_the_names_is_refused(tmp_path: Path) -> None:
    torch.save(_randomised(Torchvision(CONFIG)).state_dict(), tmp_path / "theirs.pth")
    with pytest.raises(VitportError, match="contradicts the names of torchvision"):
        conversion.load(tmp_path / "theirs.pth", model=CONFIG, norm_first=False)
