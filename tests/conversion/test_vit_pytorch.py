"""lucidrains' vit-pytorch. Oracle: its modules rewritten under its names, by torch's own layers, in float64.

The classes of vit-pytorch 1.0, 1.2, 1.6, 1.14 and 1.26 gave the same numbers as these modules.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import conversion
from tests.conversion.test_huggingface_writing import ours
from vit_cli.main import main
from vit_spec import UnstatedError, VitportError

ROWS, COLUMNS, P, C, D, HEADS, M, CLASSES = 3, 5, 4, 3, 24, 3, 37, 7
SIZE = (ROWS * P, COLUMNS * P)
GIVEN = {"num_heads": HEADS, "image_size": SIZE}
IMAGES = torch.tensor(np.random.default_rng(3).standard_normal((2, C, *SIZE)))


class Attention(nn.Module):
    """With ``fn.`` in the names of early versions; SimpleViT's projection has no bias and no dropout behind it."""

    def __init__(self, early: bool, simple: bool, width: int = D) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(D)
        inside = nn.Module()
        inside.to_qkv = nn.Linear(D, 3 * width, bias=False)
        inside.to_out = (
            nn.Linear(width, D, bias=False) if simple else nn.Sequential(nn.Linear(width, D), nn.Dropout(0.1))
        )
        if early:
            self.fn = inside
        else:
            self.to_qkv, self.to_out = inside.to_qkv, inside.to_out

    def forward(self, x: Tensor) -> Tensor:
        inside: Any = getattr(self, "fn", self)
        q, k, v = (y.unflatten(-1, (HEADS, -1)).transpose(1, 2) for y in inside.to_qkv(self.norm(x)).chunk(3, dim=-1))
        return inside.to_out(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self, early: bool, simple: bool) -> None:
        super().__init__()
        drop = [] if simple else [nn.Dropout(0.1)]
        layers = [nn.Linear(D, M), nn.GELU(), *drop, nn.Linear(M, D), *drop]
        if early:
            self.norm, self.fn = nn.LayerNorm(D), nn.Module()
            self.fn.net = nn.Sequential(*layers)
        else:
            self.net = nn.Sequential(nn.LayerNorm(D), *layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.fn.net(self.norm(x)) if hasattr(self, "fn") else self.net(x)  # type: ignore[union-attr]


class Lucid(nn.Module):
    """``ViT`` or ``SimpleViT`` of one version.

    Args:
        token: whether there is a class token: 3 axes in all versions until 1.14; ``None`` for SimpleViT.
        mean: pool by the mean of all tokens.
    """

    def __init__(self, token: tuple[int, ...] | None, *, mean: bool, normed: bool = True, pooled: bool = False,
                 early: bool = False, width: int = D) -> None:  # fmt: skip
        super().__init__()
        simple = token is None
        norms = [nn.LayerNorm(P * P * C), nn.LayerNorm(D)] if normed else [None, None]
        layers = [norms[0], nn.Linear(P * P * C, D), norms[1]]
        self.to_patch_embedding = nn.Sequential(nn.Identity(), *(layer for layer in layers if layer is not None))
        if token is not None:
            self.cls_token = nn.Parameter(torch.randn(token))
            self.pos_embedding = nn.Parameter(torch.randn(*token[:-2], ROWS * COLUMNS + token[-2], D))
        self.transformer = nn.Module()
        self.transformer.layers = nn.ModuleList(
            nn.ModuleList([Attention(early, simple, width), Mlp(early, simple)]) for _ in range(2)
        )
        if not pooled:
            self.transformer.norm = nn.LayerNorm(D)
        head = nn.Linear(D, CLASSES)
        setattr(self, "linear_head" if simple else "mlp_head", nn.Sequential(nn.LayerNorm(D), head) if pooled else head)
        self.mean, self.simple, self.pooled = mean, simple, pooled

    def forward(self, images: Tensor) -> Tensor:
        B = len(images)
        patches = images.unfold(2, P, P).unfold(3, P, P).permute(0, 2, 3, 4, 5, 1).reshape(B, ROWS * COLUMNS, -1)
        x = self.to_patch_embedding(patches)
        if self.simple:
            x = x + sincos().to(x.dtype)
        else:
            x = torch.cat([self.cls_token.reshape(1, -1, D).expand(B, -1, -1), x], dim=1) + self.pos_embedding
        layers: Any = self.transformer.layers
        for attention, mlp in layers:
            x = x + attention(x)
            x = x + mlp(x)
        x = x if self.pooled else self.transformer.norm(x)  # type: ignore[operator]
        return getattr(self, "linear_head" if self.simple else "mlp_head")(x.mean(1) if self.mean else x[:, 0])


def sincos() -> Tensor:
    """(patches, D), in float32 as vit-pytorch computes it."""
    y, x = torch.meshgrid(torch.arange(ROWS), torch.arange(COLUMNS), indexing="ij")
    omega = 1.0 / (10000 ** (torch.arange(D // 4) / (D // 4 - 1)))
    y, x = y.flatten()[:, None] * omega, x.flatten()[:, None] * omega
    return torch.cat([x.sin(), x.cos(), y.sin(), y.cos()], dim=1)


NOW = {"token": (1, D), "mean": False}
MODELS: dict[str, tuple[str, dict[str, Any], Mapping[str, Any]]] = {
    "ViT": ("vit-pytorch", NOW, {}),
    "ViT-mean": ("vit-pytorch", {"token": (0, D), "mean": True}, {}),
    "ViT-1.14": ("vit-pytorch", {"token": (1, 1, D), "mean": False}, {"pool": "token"}),
    "ViT-1.14-mean": ("vit-pytorch", {"token": (1, 1, D), "mean": True}, {"pool": "avg"}),
    "ViT-1.2": ("vit-pytorch", {"token": (1, 1, D), "mean": True, "pooled": True, "early": True}, {"pool": "avg"}),
    "ViT-0.40": ("vit-pytorch-plain", {"token": (1, 1, D), "mean": False, "normed": False, "pooled": True,
                                       "early": True}, {"pool": "token"}),
    "ViT-0.40-mean": ("vit-pytorch-plain", {"token": (1, 1, D), "mean": True, "normed": False, "pooled": True,
                                            "early": True}, {"pool": "avg"}),
    "SimpleViT": ("vit-pytorch-simple", {"token": None, "mean": True}, {}),
    "SimpleViT-1.2": ("vit-pytorch-simple", {"token": None, "mean": True, "pooled": True}, {}),
    "SimpleViT-0.40": ("vit-pytorch-simple-plain", {"token": None, "mean": True, "normed": False, "pooled": True}, {}),
}  # fmt: skip
"""Name → format, the model's arguments, what its file does not say beside heads and size."""
WRITTEN = ("ViT", "ViT-mean", "ViT-0.40", "ViT-0.40-mean", "SimpleViT", "SimpleViT-0.40")
"""The versions of which files are written."""


def model_of(**arguments: Any) -> Lucid:
    torch.manual_seed(1)
    model = Lucid(**arguments).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, 0.7 if parameter.ndim == 1 else 0.0, 0.3)
    return model


@pytest.mark.parametrize("name", MODELS)
def test_every_version_is_read_verified_and_written(name: str, tmp_path: Path) -> None:
    form, arguments, more = MODELS[name]
    model, source = model_of(**arguments), tmp_path / "vit.pt"
    torch.save(model.state_dict(), source)
    checkpoint = conversion.load(source, facts={**GIVEN, **more})
    assert checkpoint.provenance.format == form
    assert "pixels of 3" in " ".join(checkpoint.provenance.notes)
    with torch.no_grad():
        expected = model.double()(IMAGES)
    # Measured: 2e-15; SimpleViT's table differs by one unit of float32's sine and power, 1e-7, which gives 5e-8.
    torch.testing.assert_close(ours(checkpoint, IMAGES), expected, rtol=0, atol=1e-6 if model.simple else 1e-12)
    facts = ["--heads", str(HEADS), "--image-size", f"{SIZE[0]}x{SIZE[1]}"]
    facts += ["--pool", more["pool"]] if more else []
    assert main(["convert", str(source), str(tmp_path / "out.safetensors"), "--to", "timm", "--verify", *facts]) == 0
    if name in WRITTEN:
        conversion.save(checkpoint, tmp_path / "again.pt", format=form)
        written = torch.load(tmp_path / "again.pt", weights_only=True)
        before = {key: value.float() for key, value in model.state_dict().items()}
        assert written.keys() == before.keys()
        assert all(torch.equal(written[key], value) for key, value in before.items())
        model.load_state_dict(written)


@pytest.mark.parametrize("opset", [14, 17])
@pytest.mark.parametrize("name", ["ViT", "SimpleViT"])
def test_a_graph_of_it_is_read_by_what_it_computes(name: str, opset: int, tmp_path: Path) -> None:
    """Norms written out (14) and as one node (17); heads, sizes and pooling are in the graph."""
    model, images = model_of(**MODELS[name][1]), IMAGES.float()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch would rather have its other exporter used
        torch.onnx.export(model, (images,), str(tmp_path / "vit.onnx"), dynamo=False, opset_version=opset)
    checkpoint = conversion.load(tmp_path / "vit.onnx")
    assert checkpoint.config.pixel_norm
    with torch.no_grad():
        expected = model.double()(IMAGES)
    # The arithmetic of constants is in float32: 4e-7 of the largest value measured.
    torch.testing.assert_close(ours(checkpoint, IMAGES), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_what_no_file_says_is_asked_for(tmp_path: Path) -> None:
    torch.save(model_of(token=None, mean=True).state_dict(), tmp_path / "simple.pt")
    with pytest.raises(UnstatedError, match="computes its positions from the size of the images"):
        conversion.load(tmp_path / "simple.pt", facts={"num_heads": HEADS})
    torch.save(model_of(token=(1, 1, D), mean=True).state_dict(), tmp_path / "vit.pt")
    with pytest.raises(UnstatedError, match="does not say its num_heads, pool"):
        conversion.load(tmp_path / "vit.pt", facts={"image_size": SIZE})


def test_heads_that_are_not_as_wide_as_the_tokens_are_refused(tmp_path: Path) -> None:
    torch.save(model_of(**NOW, width=30).state_dict(), tmp_path / "vit.pt")
    with pytest.raises(VitportError, match=r"heads x dim_head = 30\) are not as wide as the tokens \(dim = 24\)"):
        conversion.load(tmp_path / "vit.pt", facts=GIVEN)


def test_a_learned_table_is_no_simple_vits(tmp_path: Path) -> None:
    torch.save(model_of(token=None, mean=True).state_dict(), tmp_path / "simple.pt")
    checkpoint = conversion.load(tmp_path / "simple.pt", facts=GIVEN)
    other = np.asarray(checkpoint.params["pos_embed"]) + np.float32(0.01)
    changed = conversion.Checkpoint.of(checkpoint.config, checkpoint.params.replacing("pos_embed", other))
    with pytest.raises(VitportError, match="not the fixed table that its code computes"):
        conversion.save(changed, tmp_path / "out.pt", format="vit-pytorch-simple")


def test_patches_and_channels_of_normed_pixels_keep_their_size(tmp_path: Path) -> None:
    torch.save(model_of(**NOW).state_dict(), tmp_path / "vit.pt")
    checkpoint = conversion.load(tmp_path / "vit.pt", facts=GIVEN)
    for change in ({"patch_size": 2}, {"in_channels": 1}):
        with pytest.raises(VitportError, match="a factor for each pixel of a patch"):
            (conversion.with_channels if "in_channels" in change else conversion.with_sizes)(checkpoint, **change)
