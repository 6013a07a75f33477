"""Which of timm's Vision and Swin Transformers vitport computes: ``python -m benchmarks.timm_coverage [PATTERN]``.

Every name is built by timm, two blocks deep (two in each stage of a Swin Transformer), with random weights that leave
nothing near its neutral value, saved as safetensors and loaded by ``create_model(CONFIG, weights=FILE)`` of both
frameworks, with the config that is registered under that name, shortened alike. The outputs are compared in float32.
Vision Transformers get images of 6 x 10 patches, and their patches and the tokens before them are compared too, each by
themselves, for errors in positions may show in one of them alone.
All names take an hour. With ``--output``, a run continues one that was cut short.
Needs timm, torchvision and JAX in one environment: see docs/testing.md.
"""

from __future__ import annotations

import gc
import importlib.metadata
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import safetensors.torch
import timm  # pyright: ignore[reportMissingImports]  # no part of the extra dev
import torch
import tyro
from rich.console import Console
from rich.table import Table

import vit_jax
import vit_torch
from vit_spec import Config, ViTConfig, VitportError, get_model

TOLERANCE = 1e-5
"""Of the largest absolute value of timm's output: some 80 float32 roundings."""
NEEDED = 290
GRID = 6, 10
"""Rows and columns of patches: neither square, nor each other's multiple."""
DEPTH = 2
_FLAT, _STAGED = {"depth": DEPTH}, {"depths": (DEPTH,) * 4}
MODULES: dict[str, dict[str, Any]] = {
    "vision_transformer": _FLAT, "deit": _FLAT, "eva": _FLAT, "beit": _FLAT,
    "vision_transformer_relpos": _FLAT, "naflexvit": _FLAT, "qwen3_vit": _FLAT, "deepseek_vit": _FLAT,
    "swin_transformer": _STAGED, "swin_transformer_v2": _STAGED,
}  # fmt: skip
"""timm's module → what makes its models shallow, for timm and in the config."""
_JOINING = re.compile(r"(?:qwen3|deepseek)_vit_\w+_enc")
"""Models whose encoders are compared, with the mean of the patches: timm's usual output joins neighbouring ones. timm
resizes the table of positions of some for every image, and vitport when it reads them."""
_GROUPED = re.compile(r"vit_\w+_patch16_sapiens2")
"""Models whose blocks differ: in some, two heads share keys and values. Two blocks are one of each."""


@dataclass(frozen=True)
class Result:
    """The outcome for one name: relative errors, or the error message."""

    name: str
    torch_error: float = float("nan")
    jax_error: float = float("nan")
    refusal: str = ""
    fault: str = ""

    @property
    def said(self) -> str:
        """Why there are no numbers, if so."""
        return f"failed: {self.fault}" if self.fault else f"refused: {self.refusal}" if self.refusal else ""

    @property
    def agrees(self) -> bool:
        return self.torch_error <= TOLERANCE and self.jax_error <= TOLERANCE


def names(pattern: str) -> dict[str, dict[str, Any]]:
    """The names that match, and what makes their models shallow."""
    found = {name: depth for module, depth in MODULES.items() for name in timm.list_models(pattern, module=module)}
    return dict(sorted(found.items()))


def shallow(name: str, changes: dict[str, Any]) -> torch.nn.Module:
    """timm's model of that name, of another depth and image size, with random weights, in evaluation mode."""
    torch.manual_seed(0)
    model = timm.create_model(name, **changes, pretrained=False).eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.ndim >= 2 and not key.endswith(("token", "pos_embed", "latent", "freqs")):
                parameter.normal_(std=parameter[0].numel() ** -0.5)
            else:
                factor = key.endswith((".weight", "gamma", "gamma_1", "gamma_2"))
                parameter.normal_(std=0.5).add_(1.0 if factor else 0.0)
    return model


def measure(name: str, depth: dict[str, Any]) -> Result:
    """Relative errors of both frameworks under one name."""
    try:
        ours = get_model(name).config.replace(**depth)
    except VitportError as error:
        return Result(name, refusal=str(error))
    if isinstance(ours, ViTConfig):
        ours = ours.replace(image_size=tuple(ours.patch_size * side for side in GRID))
    sizes: dict[str, Any] = {"img_size": ours.image_size} if isinstance(ours, ViTConfig) else {}
    if isinstance(ours, ViTConfig) and _GROUPED.fullmatch(name):
        sizes["num_kv_heads"] = (ours.num_heads, ours.num_heads // 2)
    if _JOINING.fullmatch(name):
        sizes["global_pool"] = "avg"
    reference: Any = shallow(name, depth | sizes)
    image = torch.randn(1, ours.in_channels, *ours.image_size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        tokens = reference.forward_features(image)
        if _JOINING.fullmatch(name):  # in rows and columns; and the encoders have no head
            tokens, output = tokens.flatten(1, 2), reference(image)
        else:
            output = reference.forward_head(tokens)
        expected = _parts(ours, output.numpy(), tokens.numpy())
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.safetensors"
        safetensors.torch.save_file({key: value.contiguous() for key, value in reference.state_dict().items()}, file)
        del reference
        try:
            return Result(name, _torch_error(ours, file, image, expected), _jax_error(ours, file, image, expected))
        except VitportError as error:
            return Result(name, refusal=str(error))
        except Exception as error:  # a fault of ours: a row of the table; the other names are measured all the same
            return Result(name, fault=f"{type(error).__name__}: {error}")


def _parts(config: Config, output: np.ndarray, tokens: np.ndarray) -> list[np.ndarray]:
    """What is compared: the output, and of a Vision Transformer the patches and the tokens before them."""
    if not isinstance(config, ViTConfig):
        return [output]
    prefix = config.num_prefix_tokens
    return [output, tokens[:, prefix:], *([tokens[:, :prefix]] if prefix else [])]


def _largest(actual: list[np.ndarray], expected: list[np.ndarray]) -> float:
    return max(_error(*pair) for pair in zip(actual, expected, strict=True))


def _error(actual: np.ndarray, expected: np.ndarray) -> float:
    if actual.shape != expected.shape:
        raise ValueError(f"vitport gives {actual.shape}, timm {expected.shape}.")
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


def _torch_error(config: Config, file: Path, image: torch.Tensor, expected: list[np.ndarray]) -> float:
    model = vit_torch.create_model(config, weights=file, image_size=config.image_size).eval()
    with torch.no_grad():
        tokens = model.forward_features(image)
        output = model.forward_head(tokens)
    assert isinstance(output, torch.Tensor)
    return _largest(_parts(config, output.numpy(), tokens.numpy()), expected)


def _jax_error(config: Config, file: Path, image: torch.Tensor, expected: list[np.ndarray]) -> float:
    model = vit_jax.create_model(config, weights=file, image_size=config.image_size)
    model.eval()
    pixels = image.permute(0, 2, 3, 1).numpy()
    with jax.default_matmul_precision("highest"):
        tokens = model.forward_features(jax.numpy.asarray(pixels))
        return _largest(_parts(config, np.asarray(model.forward_head(tokens)), np.asarray(tokens)), expected)


def versions() -> str:
    return ", ".join(
        f"{package} {importlib.metadata.version(package)}"
        for package in ("timm", "torch", "torchvision", "jax", "flax", "numpy")
    )


def measured(page: str) -> dict[str, Result]:
    """The names that agree in a page that :func:`markdown` wrote, with what was measured of them.

    Returns:
        None of them if the page was measured with other versions.
    """
    if f"with {versions()}.\n" not in page:
        return {}
    rows = re.findall(r"^\| `(\w+)` \| ([\d.e+-]+) \| ([\d.e+-]+) \|$", page, re.MULTILINE)
    results = [Result(name, float(in_torch), float(in_jax)) for name, in_torch, in_jax in rows]
    return {result.name: result for result in results if result.agrees}


def markdown(results: list[Result]) -> str:
    """The page of the documentation."""
    agreeing = sum(result.agrees for result in results)
    lines = [
        "# Coverage of timm",
        "",
        f"{agreeing} of {len(results)} names agree within {TOLERANCE:g} of the output's largest value. Each model is "
        f"{DEPTH} blocks deep, a Swin Transformer in each of its stages, and has random weights, none near its neutral "
        f"value. Images of Vision Transformers are {GRID[0]} x {GRID[1]} patches large; of output, patches and other "
        "tokens, the largest error is given.",
        "",
        f"Written by `python -m benchmarks.timm_coverage` with {versions()}.",
        "",
        "| name | PyTorch | JAX |",
        "|---|---|---|",
    ]
    for result in results:
        said = result.said.replace("|", "\\|")
        lines.append(
            f"| `{result.name}` | {said} | |"
            if said
            else f"| `{result.name}` | {result.torch_error:.1e} | {result.jax_error:.1e} |"
        )
    return "\n".join(lines) + "\n"


def coverage(pattern: Annotated[str, tyro.conf.Positional] = "*", output: Path | None = None) -> int:
    """Compare every matching name with timm.

    Args:
        pattern: shell pattern over timm's names.
        output: where to write the table as Markdown. Names that agree in a page that is there already, measured with
            the same versions, are not measured again.

    Returns:
        0 where at least 290 names agree, or all of a narrower pattern that are not refused; else 1.
    """
    console = Console()
    found = measured(output.read_text(encoding="utf-8")) if output is not None and output.exists() else {}
    wanted = names(pattern)
    for name in (name for name in wanted if name not in found):
        result = found[name] = measure(name, wanted[name])
        console.print(f"{name}: {result.said or f'{result.torch_error:.1e} {result.jax_error:.1e}'}", markup=False)
        if output is not None:  # after each name: a run that is cut short leaves what it measured
            output.write_text(markdown([found[name] for name in sorted(found)]), encoding="utf-8")
        jax.clear_caches()
        gc.collect()
    results = [found[name] for name in wanted]
    table = Table("name", "PyTorch", "JAX", title=f"vitport against {versions()}")
    for result in results:
        table.add_row(result.name, result.said or f"{result.torch_error:.1e}", f"{result.jax_error:.1e}")
    console.print(table)
    agreeing = sum(result.agrees for result in results)
    refused = sum(bool(result.refusal) for result in results)
    console.print(f"{agreeing} of {len(results)} agree within {TOLERANCE:g}, {refused} are refused.")
    needed = NEEDED if pattern == "*" else len(results) - refused
    return 0 if agreeing >= needed and results else 1


if __name__ == "__main__":
    sys.exit(tyro.cli(coverage))
