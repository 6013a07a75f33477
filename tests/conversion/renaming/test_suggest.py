"""Drafts of rules. Oracle: the modules by hand, whose numbers the completed draft must give, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import conversion
from conversion.renaming.vit.suggest import suggest_rules
from tests.conversion.renaming.test_renaming import HEADS, D, Hand, Mha, PerHead, X
from tests.conversion.test_huggingface_writing import ours
from vit_cli.main import main
from vit_spec import VitportError


class Separate(Mha):
    """Three linear layers for queries, keys and values."""

    def __init__(self) -> None:
        super().__init__()
        del self.mha
        self.to_q, self.to_k, self.to_v, self.merge = (nn.Linear(D, D) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        q, k, v = (layer(y).unflatten(-1, (HEADS, -1)).transpose(1, 2) for layer in (self.to_q, self.to_k, self.to_v))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + self.merge(mixed)
        return x + self.down(nn.functional.gelu(self.up(self.second(x))))


KNOWN = {
    "num_heads:": "num_heads: 3", "norm:": "norm: layernorm", "norm_eps:": "norm_eps: 1.0e-5",
    "activation:": "activation: gelu", "pool:": "pool: avg", "block:": "block: sequential\n  image_size: [12, 20]",
}  # fmt: skip


@pytest.mark.parametrize("layer", [Mha, Separate, PerHead])
def test_a_completed_draft_gives_the_modules_own_numbers(layer, tmp_path, capsys) -> None:
    torch.manual_seed(1)
    model = Hand(layer).eval()
    for parameter in model.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, 0.7, 0.3)
    torch.save(model.state_dict(), tmp_path / "hand.pth")
    assert main(["inspect", str(tmp_path / "hand.pth"), "--suggest"]) == 0
    draft = capsys.readouterr().out
    assert "not placed" not in draft
    (tmp_path / "rules.yaml").write_text(draft)
    with pytest.raises(VitportError, match="norm_first"):
        conversion.load(tmp_path / "hand.pth", rename=tmp_path / "rules.yaml")
    lines = [
        line if not line.startswith("  ") else f"  {KNOWN.get(line.split()[0], line[2:])}"
        for line in draft.splitlines()
    ]
    if layer is PerHead:  # a bias that is not there, and a factor that no shape shows
        lines = [line.replace("layers.<i>.out.weight", "{from: layers.<i>.out.weight, times: 0.5}") for line in lines]
        lines.append("  blocks.<i>.attn.proj.bias: {zeros: 24}")
    (tmp_path / "rules.yaml").write_text("\n".join(lines))
    checkpoint = conversion.load(tmp_path / "hand.pth", rename=tmp_path / "rules.yaml")
    with torch.no_grad():
        expected = model.double()(X)
    torch.testing.assert_close(ours(checkpoint, X), expected, rtol=0, atol=1e-12)


def test_what_is_not_understood_stands_in_a_comment() -> None:
    found = suggest_rules({"l.0.a.weight": (8, 8), "l.1.a.weight": (8, 8), "l.0.n.weight": (8,), "l.1.n.weight": (8,),
                           "strange": (3, 5, 7)})  # fmt: skip
    assert "# not placed: strange (3, 5, 7)" in found


def test_names_without_blocks_are_refused(tmp_path) -> None:
    with pytest.raises(VitportError, match="No names count blocks"):
        suggest_rules({"a.weight": (3, 4)})


def test_an_unknown_format_names_the_way_on(tmp_path) -> None:
    torch.save(Hand(Mha).state_dict(), tmp_path / "hand.pth")
    with pytest.raises(VitportError, match="inspect --suggest` drafts rules for --rename"):
        conversion.load(tmp_path / "hand.pth")
