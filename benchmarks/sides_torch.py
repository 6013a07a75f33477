"""The sides in PyTorch: timm and transformers as their users run them, compiled or not, and vit_torch."""

from __future__ import annotations

import importlib.metadata
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors.torch
import torch

import conversion
import vit_torch
from benchmarks.side import Side, UnavailableError, import_library, resident_memory, threads
from benchmarks.subject import PEAK_RATE, WEIGHT_DECAY, Subject
from vit_spec import family_of

Library = Literal["timm", "transformers", "vit_torch"]


def inference(
    subject: Mapping[str, Any],
    batches: Sequence[int],
    library: Library,
    compiled: bool = False,
    device: str = "cpu",
    dtype: str = "float32",
    tf32: bool = False,
) -> Side:
    """A forward pass in evaluation and inference mode, for each batch size a part of that name.

    Args:
        subject: the fields of a ``Subject``.
        batches: images in a batch.
        library: whose model.
        compiled: by ``torch.compile``, once for each batch size.
        device: ``cpu`` or ``cuda``.
        dtype: of parameters and computation.
        tf32: allow TensorFloat-32 for float32 products.
    """
    facts = _prepare(library, compiled, device, tf32)
    what, kind = Subject(**subject), getattr(torch, dtype)
    model = make_model(library, what).eval().to(device, kind)
    called = torch.compile(model, dynamic=False) if compiled else model
    images = {batch: _images(what, batch).to(device, kind) for batch in batches}

    def forward(batch: int) -> torch.Tensor:
        with torch.inference_mode():
            return _logits(called(images[batch]))

    def runs(batch: int) -> Callable[[int], None]:
        def run(count: int) -> None:
            for _ in range(count):
                forward(batch)
            _wait(device)

        return run

    def answers() -> dict[str, np.ndarray]:
        return {"logits": forward(min(batches)).float().cpu().numpy()}

    return Side({str(batch): runs(batch) for batch in batches}, answers, facts)


def train(
    subject: Mapping[str, Any],
    batch: int,
    library: Library,
    compiled: bool = False,
    device: str = "cpu",
    dtype: str = "float32",
    losses: int = 3,
) -> Side:
    """Forward, backward and fused AdamW over a batch on the device; one part, ``step``.

    Args:
        subject: the fields of a ``Subject``.
        batch: images.
        library: whose model.
        compiled: the model by ``torch.compile``; the optimizer is fused by itself.
        device: ``cpu`` or ``cuda``.
        dtype: of the computation, by autocast where it is not float32; parameters and moments are in float32.
        losses: the answers are the losses of so many first steps.
    """
    facts = _prepare(library, compiled, device)
    what = Subject(**subject)
    model = make_model(library, what).train().to(device)
    called = torch.compile(model, dynamic=False) if compiled else model
    decayed = [p for name, p in model.named_parameters() if name.endswith("weight") and p.ndim > 1]
    others = [p for name, p in model.named_parameters() if not (name.endswith("weight") and p.ndim > 1)]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}],
        lr=PEAK_RATE, betas=(0.9, 0.999), eps=1e-8, fused=True,
    )  # fmt: skip
    images, labels = _images(what, batch).to(device), torch.from_numpy(what.labels(batch)).long().to(device)
    seen: list[torch.Tensor] = []

    def run(count: int) -> None:
        for _ in range(count):
            with torch.autocast(device, getattr(torch, dtype), enabled=dtype != "float32"):
                loss = torch.nn.functional.cross_entropy(_logits(called(images)), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if len(seen) < losses:
                seen.append(loss.detach())
        _wait(device)

    def answers() -> dict[str, np.ndarray]:
        run(max(0, losses - len(seen)))
        return {"losses": np.array([float(loss) for loss in seen])}

    return Side({"step": run}, answers, facts)


def attention(shape: Sequence[int], device: str = "cuda", dtype: str = "bfloat16") -> Side:
    """PyTorch's ``scaled_dot_product_attention``; parts ``forward`` and ``backward``, which has both.

    Args:
        shape: (B, N, h, d).
        device: ``cpu`` or ``cuda``.
        dtype: of queries, keys and values.
    """
    facts = _prepare("torch", False, device)
    rng = np.random.default_rng(0)
    drawn = [torch.from_numpy(rng.standard_normal(tuple(shape), np.float32)) for _ in range(3)]
    q, k, v = (x.to(device, getattr(torch, dtype)).transpose(1, 2) for x in drawn)  # (B, h, N, d) each
    heads = torch.nn.functional.scaled_dot_product_attention

    def forward(count: int) -> None:
        with torch.inference_mode():
            for _ in range(count):
                heads(q, k, v)
        _wait(device)

    def gradients() -> Sequence[torch.Tensor]:
        inputs = [x.detach().requires_grad_() for x in (q, k, v)]
        return torch.autograd.grad(heads(inputs[0], inputs[1], inputs[2]).float().square().sum(), inputs)

    def backward(count: int) -> None:
        for _ in range(count):
            gradients()
        _wait(device)

    def answers() -> dict[str, np.ndarray]:
        found = zip(("q", "k", "v"), gradients(), strict=True)
        back = {f"gradient of {name}": x.transpose(1, 2).float().cpu().numpy() for name, x in found}
        return {"heads": heads(q, k, v).transpose(1, 2).flatten(2).float().cpu().numpy(), **back}

    return Side({"forward": forward, "backward": backward}, answers, facts)


def make_model(library: Library, what: Subject) -> torch.nn.Module:
    """The subject as one library builds it, with the same weights.

    Raises:
        UnavailableError: if the library cannot be imported.
    """
    checkpoint = what.checkpoint()
    if library == "vit_torch":
        return vit_torch.create_model(weights=checkpoint)
    if library == "transformers":
        transformers: Any = import_library("transformers")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model"
            conversion.save(checkpoint, path, format="huggingface")
            kind = "AutoModelForImageClassification" if checkpoint.config.num_classes else "AutoModel"
            return getattr(transformers, kind).from_pretrained(path)
    timm: Any = import_library("timm")
    timms = {field: name for name, field in family_of(checkpoint.config).aliases.items()}
    changes = {timms.get(field, field): value for field, value in what.changes.items()}
    model = timm.create_model(what.model, **changes, drop_path_rate=0.0)
    with tempfile.TemporaryDirectory() as folder:
        conversion.save(checkpoint, Path(folder) / "model.safetensors", format="timm")
        model.load_state_dict(safetensors.torch.load_file(Path(folder) / "model.safetensors"), strict=True)
    return model


def _logits(output: Any) -> torch.Tensor:
    """What a model gives, or what transformers wraps it in; of a model without classes, its features."""
    if isinstance(output, torch.Tensor):
        return output
    return output.logits if "logits" in output else output.pooler_output


def _images(what: Subject, batch: int) -> torch.Tensor:
    return torch.from_numpy(what.images(batch)).permute(0, 3, 1, 2).contiguous()


def _prepare(library: Library | Literal["torch"], compiled: bool, device: str, tf32: bool = False) -> dict[str, Any]:
    """Settings of the process, before anything is built; the facts of the side."""
    if compiled and device == "cpu" and shutil.which("g++") is None and shutil.which("clang++") is None:
        raise UnavailableError("on a CPU torch.compile needs a C++ compiler, and there is no g++: install it")
    torch.set_num_threads(threads())
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    import_library(library)
    package = "torch" if library == "vit_torch" else library
    return {
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
        "libraries": resident_memory(),
        "versions": {name: importlib.metadata.version(name) for name in dict.fromkeys(("torch", package))},
    }


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
