"""Models written by hand, read by a file of rules. Oracle: the modules themselves, in float64."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import conversion
import vitport
from tests.conversion.test_huggingface_writing import ours
from vit_cli.main import main
from vit_spec import VitportError

D, HEADS, PATCH, DEPTH = 24, 3, 4, 2
X = torch.randn(2, 3, 12, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


class Head(nn.Module):
    """One head of its own: queries, keys and values as bare matrices (in, out)."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Parameter(torch.randn(D, D // HEADS) * D**-0.5) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        weights = (x @ self.q @ (x @ self.k).transpose(1, 2) * (D // HEADS) ** -0.5).softmax(-1)
        return weights @ (x @ self.v)


class PerHead(nn.Module):
    """A layer with separate heads, whose residual is scaled by a half."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(D, 1e-5), nn.LayerNorm(D, 1e-5)
        self.heads = nn.ModuleList(Head() for _ in range(HEADS))
        self.out = nn.Linear(D, D, bias=False)
        self.up, self.down = nn.Linear(D, 40), nn.Linear(40, D)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        x = x + 0.5 * self.out(torch.cat([head(y) for head in self.heads], -1))
        return x + self.down(nn.functional.gelu(self.up(self.second(x))))


class Mha(nn.Module):
    """A layer around nn.MultiheadAttention."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(D, 1e-5), nn.LayerNorm(D, 1e-5)
        self.mha = nn.MultiheadAttention(D, HEADS, batch_first=True)
        self.up, self.down = nn.Linear(D, 40), nn.Linear(40, D)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        x = x + self.mha(y, y, y, need_weights=False)[0]
        return x + self.down(nn.functional.gelu(self.up(self.second(x))))


class Hand(nn.Module):
    """Patches flattened as (row, column, channel) into a linear layer; the mean of the patches is classified."""

    def __init__(self, layer: type[nn.Module]) -> None:
        super().__init__()
        self.patches = nn.Linear(3 * PATCH * PATCH, D)
        self.places = nn.Parameter(torch.randn(15, D))
        self.layers = nn.ModuleList(layer() for _ in range(DEPTH))
        self.last = nn.LayerNorm(D, 1e-5)
        self.classes = nn.Linear(D, 5)

    def forward(self, images: Tensor) -> Tensor:
        B, C, H, W = images.shape
        cut = images.reshape(B, C, H // PATCH, PATCH, W // PATCH, PATCH).permute(0, 2, 4, 3, 5, 1)
        x = self.patches(cut.reshape(B, -1, PATCH * PATCH * C)) + self.places
        for layer in self.layers:
            x = layer(x)
        return self.classes(self.last(x).mean(1))


FACTS = """
facts: {num_heads: 3, norm: layernorm, norm_eps: 1.0e-5, activation: gelu, pool: avg, block: sequential,
        image_size: [12, 20]}
rules:
  patch_embed.proj.weight: {from: patches.weight, reshape: [-1, 4, 4, 3], axes: [0, 3, 1, 2]}
  patch_embed.proj.bias: patches.bias
  pos_embed: {from: places, reshape: [1, -1, 24]}
  blocks.<i>.norm1.weight: layers.<i>.first.weight
  blocks.<i>.norm1.bias: layers.<i>.first.bias
  blocks.<i>.norm2.weight: layers.<i>.second.weight
  blocks.<i>.norm2.bias: layers.<i>.second.bias
  blocks.<i>.mlp.fc1.weight: layers.<i>.up.weight
  blocks.<i>.mlp.fc1.bias: layers.<i>.up.bias
  blocks.<i>.mlp.fc2.weight: layers.<i>.down.weight
  blocks.<i>.mlp.fc2.bias: layers.<i>.down.bias
  norm.weight: last.weight
  norm.bias: last.bias
  head.weight: classes.weight
  head.bias: classes.bias
"""
RULES = {
    PerHead: FACTS + """
  blocks.<i>.attn.qkv.weight:
    from: ["layers.<i>.heads.<h>.q", "layers.<i>.heads.<h>.k", "layers.<i>.heads.<h>.v"]
    transpose: true
  blocks.<i>.attn.proj.weight: {from: layers.<i>.out.weight, times: 0.5}
  blocks.<i>.attn.proj.bias: {zeros: 24}
""",
    Mha: FACTS + """
  blocks.<i>.attn.qkv.weight: layers.<i>.mha.in_proj_weight
  blocks.<i>.attn.qkv.bias: layers.<i>.mha.in_proj_bias
  blocks.<i>.attn.proj.weight: layers.<i>.mha.out_proj.weight
  blocks.<i>.attn.proj.bias: layers.<i>.mha.out_proj.bias
""",
}  # fmt: skip


def saved(layer: type[nn.Module], folder) -> nn.Module:
    torch.manual_seed(1)
    model = Hand(layer).eval()
    for parameter in model.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, 0.7, 0.3)
    torch.save(model.state_dict(), folder / "hand.pth")
    (folder / "rules.yaml").write_text(RULES[layer])
    return model.double()


@pytest.mark.parametrize("layer", RULES)
def test_a_model_by_hand_gives_its_own_numbers(layer, tmp_path) -> None:
    """Measured 4e-15 on values of order 1."""
    theirs = saved(layer, tmp_path)
    checkpoint = conversion.load(tmp_path / "hand.pth", rename=tmp_path / "rules.yaml")
    assert checkpoint.provenance.origins["num_heads"].endswith("rules.yaml")
    with torch.no_grad():
        expected = theirs(X)
    torch.testing.assert_close(ours(checkpoint, X), expected, rtol=0, atol=1e-12)


def test_a_conversion_is_verified_against_the_module_block_by_block(tmp_path, monkeypatch, capsys) -> None:
    """Without the module there is nothing to verify with; a wrong rule fails at its block."""
    saved(PerHead, tmp_path)
    source, rules, out = (str(tmp_path / name) for name in ("hand.pth", "rules.yaml", "out"))
    module = type(sys)("hand_written")

    def load(path) -> nn.Module:
        model = Hand(PerHead)
        model.load_state_dict(torch.load(path, weights_only=True))
        return model

    module.load = load  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "hand_written", module)
    command = ["convert", source, out, "--to", "timm", "--rename", rules, "--overwrite"]
    assert main([*command, "--verify"]) == 2
    assert "name your module with --against" in capsys.readouterr().err
    assert main([*command, "--verify", "--against", "hand_written:load"]) == 0
    printed = capsys.readouterr().out
    assert "note: running hand_written:load, which is your own code" in printed
    assert "blocks.0" in (tmp_path / "out.certificate.json").read_text()
    wrong = RULES[PerHead].replace("times: 0.5", "times: 0.6")
    (tmp_path / "rules.yaml").write_text(wrong)
    done = vitport.convert(
        source, out, to="timm", rename=rules, overwrite=True, verify=True, against="hand_written:load"
    )
    assert done.certificate is not None
    assert done.certificate.first_failure is not None
    assert done.certificate.first_failure[1].name == "blocks.0"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("block: sequential,", "", "say how the module was built with norm_first"),
        ("num_heads: 3,", "", "does not say its num_heads"),
        ("last.weight", "lost.weight", "makes norm.weight of lost.weight, which the file does not have"),
        ("  head.bias: classes.bias\n", "", "classes.bias"),
        ("axes: [0, 3, 1, 2]", "axes: [0, 3]", "cannot become patch_embed.proj.weight"),
        ("transpose: true", "transposed: true", "cannot be understood"),
        ("blocks.<i>.norm1.bias: layers.<i>", "blocks.<i>.norm1.bias: layers.0", "must stand in all of its names"),
        ("times: 0.5", "times: [1]", "must be a number"),
        ("pool: avg", "pool: mean", "pool='mean' is unknown"),
        ("facts:", "fact:", "must hold rules"),
        ("rules:", "{rules", "is not valid YAML"),
    ],
)
def test_a_mistake_in_the_rules_is_one_sentence(old, new, words, tmp_path) -> None:
    saved(PerHead, tmp_path)
    rules = tmp_path / "rules.yaml"
    assert old in RULES[PerHead]
    rules.write_text(RULES[PerHead].replace(old, new, 1))
    with pytest.raises(VitportError, match=words) as caught:
        conversion.load(tmp_path / "hand.pth", rename=rules)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("named", "words"), [("x", "must be MODULE:FUNCTION"), ("no_such:x", "fails .ModuleNotFound")])
def test_a_module_that_is_not_there_is_one_sentence(named, words, tmp_path) -> None:
    saved(Mha, tmp_path)
    with pytest.raises(VitportError, match=words):
        vitport.convert(
            tmp_path / "hand.pth",
            tmp_path / "out",
            to="timm",
            rename=tmp_path / "rules.yaml",
            verify=True,
            against=named,
        )


def test_a_factor_may_be_a_vector_of_the_file(tmp_path) -> None:
    arrays = {"w": np.ones((2, 3)), "g": np.array([2.0, 3.0])}
    (tmp_path / "r.yaml").write_text("rules: {a: {from: w, times: g}}")
    from conversion.renaming.names import Renaming
    from conversion.renaming.rules_file import read_rules

    table, surplus = Renaming(read_rules(tmp_path / "r.yaml")).read(conversion.TensorTable.of(arrays))
    assert surplus == []
    assert table["a"].tolist() == [[2, 2, 2], [3, 3, 3]]
