"""The activations of a Swin Transformer of transformers, under our names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from conversion.formats import FORMATS
from conversion.second_reading import Candidates
from conversion.second_reading.swin import SwinReading
from vit_parity.capture import Capture
from vit_parity.frameworks import torch_array, torch_dtype_name, torch_images
from vit_parity.points import activation_names, answer_name
from vit_parity.semantics.swin.model import filled
from vit_spec import SwinConfig, VitportError

_PREFIXES = ("", "swin.", "swinv2.", "model.")


def capture_transformers(model: Any, config: SwinConfig, images: np.ndarray, title: str = "transformers") -> Capture:
    """Run a Swin or Swinv2 model of transformers and keep every activation that has a name here.

    Args:
        model: in evaluation mode, with eager attention. Version 1 of transformers changes its windows for good at the
            first small image, so a model that ran images of another size gives other results.
        config: the same model as vitport reads it.
        images: (B, H, W, C), preprocessed.

    Raises:
        VitportError: if the model has no blocks under names known here.
    """
    import torch
    import transformers

    found: dict[str, Any] = {}
    weight = next(model.parameters())
    handles = _Watch(model, config, found).handles()
    try:
        with torch.no_grad():
            output = model(torch_images(images, weight), output_attentions=True)
    finally:
        for handle in handles:
            handle.remove()
    if config.num_classes and "logits" in output:
        found["logits"] = output.logits
    elif "pooled" in found:
        found[answer_name(config)] = found["pooled"]
    facts = {"framework": f"transformers {transformers.__version__}, torch {torch.__version__}"}
    facts["dtype"] = torch_dtype_name(weight)
    arrays = {name: torch_array(found[name]) for name in activation_names(config) if name in found}
    return Capture(title, arrays, images, facts)


class _Watch:
    """Hooks on the modules that the second reading of transformers' format names."""

    def __init__(self, model: Any, config: SwinConfig, found: dict[str, Any]) -> None:
        self.modules = dict(model.named_modules())
        self.config, self.found = config, found
        reading = FORMATS["huggingface-swin" if config.version == 1 else "huggingface-swinv2"].second_reading
        assert isinstance(reading, SwinReading)
        self.names = reading.names
        first = filled(self.names.block, 0, 0)
        known = [prefix for prefix in _PREFIXES if any(f"{prefix}{name}" in self.modules for name in first)]
        if not known:
            raise VitportError(
                f"{type(model).__name__} has no blocks under names known here: compare it through a capture."
            )
        self.prefix = known[0]
        self.made: list[Any] = []

    def handles(self) -> list[Any]:
        """The hooks, to be removed again."""
        c, n = self.config, self.names
        self._watch(n.patches, lambda x, y: self._keep("patch_embed.proj", y.flatten(2).transpose(1, 2)))
        self._watch(n.patch_norm, lambda x, y: self._keep("patch_embed.norm", y))
        for stage, depth in enumerate(c.depths):
            for layer, names in (("norm", n.merge_norm), ("reduction", n.merge)):
                if stage:
                    name = f"layers.{stage}.blocks.0.merge.{layer}"
                    self._watch(filled(names, stage), lambda x, y, name=name: self._keep(name, y))
            for index in range(depth):
                self._block(stage, index)
        self._watch(n.norm, lambda x, y: self._keep("norm", y))
        self._watch(("pooler",), lambda x, y: self._keep("pooled", y.flatten(1)))
        return self.made

    def _block(self, stage: int, index: int) -> None:
        n, at = self.names, f"layers.{stage}.blocks.{index}"
        block = filled(n.block, stage, index)

        def inside(names: Candidates) -> Candidates:
            return tuple(f"{own}.{name}" for own in block for name in names)

        def watch(names: Candidates, before: str, behind: str) -> None:
            self._watch(inside(names), lambda x, y: (self._keep(f"{at}.{before}", x, before),
                                                     self._keep(f"{at}.{behind}", y, behind)))  # fmt: skip

        second = self.config.version == 2
        watch(n.norm1, "", "norm1")
        watch(n.query, "attn.windows", "q")
        watch(n.key, "", "k")
        watch(n.value, "", "v")
        watch(n.out, "attn.heads", "attn.proj")
        watch(n.norm2, "" if second else "mid", "norm2")
        watch(n.first, "mid" if second else "", "mlp.fc1")
        watch(n.second, "mlp.act", "mlp.fc2")
        self._watch(block, lambda x, y: self._end(at, x, y))

    def _end(self, at: str, x: Any, y: Any) -> None:
        """A block: its tokens, and attention weights behind them."""
        import torch

        if at == "layers.0.blocks.0":
            self.found["embed"] = x
        self.found[at] = y[0] if isinstance(y, tuple) else y
        if isinstance(y, tuple) and len(y) > 1:
            self.found[f"{at}.attn.softmax"] = y[1]
        parts = [self.found.pop(f"{at}.{part}", None) for part in "qkv"]
        if self.config.version == 1 and all(part is not None for part in parts):  # version 2's hold biases already
            self.found[f"{at}.attn.qkv"] = torch.cat(parts, dim=-1)

    def _keep(self, name: str, value: Any, wanted: str = "yes") -> None:
        if wanted:
            self.found[name] = value

    def _watch(self, names: Candidates, keep: Callable[[Any, Any], Any]) -> None:
        def hook(_: Any, given: tuple[Any, ...], output: Any) -> None:  # what a hook gives would replace the output
            keep(given[0] if given else None, output)

        found = (self.modules.get(f"{self.prefix}{name}") for name in names)
        self.made += [module.register_forward_hook(hook) for module in found if module is not None]
