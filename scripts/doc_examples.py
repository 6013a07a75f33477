"""Runs the examples of the documentation and records what they print: ``python -m scripts.doc_examples [PAGE …]``.

An example is a fenced block ``console``, whose commands begin with ``$`` and are followed by what they print, or a
block ``python`` with a block ``text`` right after it, which holds what the program prints. The examples of a page run
one after the other in a temporary folder. It holds the page's blocks that have a file's name as title, and the files of
``FILES`` that the page names: weights from fixed random numbers, and downloads of the demo. The bucket ``gs://pod`` is
one of the tests' server. With ``--check`` nothing is written; the status is 1 where a page differs in more than
numbers.
"""

from __future__ import annotations

import difflib
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from safetensors.numpy import save_file

import conversion
from benchmarks.random_weights import random_params
from conversion.formats import FORMATS
from tests.stores import google
from vit_cli.download import default_cache, fetch_dinov2_onnx, fetch_photograph
from vit_spec import Config, SwinConfig, ViTConfig, get_model

ROOT = Path(__file__).parent.parent
_BODY = r"(?:(?!^```).*\n)*"
EXAMPLE = re.compile(
    rf"^```console\n(?P<session>\$ {_BODY})```\n"
    rf"|^```python\n(?P<program>{_BODY})```\n\n```text\n(?P<printed>{_BODY})```\n",
    re.MULTILINE,
)
TITLED = re.compile(rf'^```(?:python|sh) title="(?P<name>\w+\.(?:py|sh))"\n(?P<program>{_BODY})```\n', re.MULTILINE)
NUMBER = re.compile(r"\b[0-9a-f]{64}\b|\d+(,\d{3})*([.:]\d+)?(e[-+]?\d+)?")


def _params(config: Config) -> dict[str, np.ndarray]:
    return random_params(config, seed=0, dtype=np.float32)


def _saved(name: str, form: str, **changes: object) -> Callable[[Path], None]:
    """A registered model with random weights, in a format of its own."""

    def make(path: Path) -> None:
        config = get_model(name).config.replace(**changes)
        checkpoint = conversion.Checkpoint.of(config, _params(config), get_model(name).preprocessing)
        conversion.save(checkpoint, path, format=form, activation="keep")

    return make


def _bare(name: str, not_numbers: int = 0, form: str | None = None) -> Callable[[Path], None]:
    """Tensors in a safetensors file without a record, some values of one of them not a number, or under the names of a
    format."""

    def make(path: Path) -> None:
        config = get_model(name).config
        params = _params(config)
        if form is not None:
            params = dict(FORMATS[form].names.write(conversion.TensorTable.of(params), config))
        if not_numbers:
            params["blocks.3.mlp.fc1.weight"][0, :not_numbers] = np.nan
        save_file(params, path)

    return make


def _fetched(fetch: Callable[[Path], Path]) -> Callable[[Path], None]:
    """A file that the demo downloads."""

    def make(path: Path) -> None:
        shutil.copy(fetch(default_cache()), path)

    return make


def _carried(path: Path) -> None:
    """Weights that come with vitport."""
    shutil.copy(ROOT / "vit_cli" / "assets" / path.name, path)


def _pickled(name: str) -> Callable[[Path], None]:
    """The same as the originals' training scripts save it."""

    def make(path: Path) -> None:
        tensors = {key: torch.tensor(array) for key, array in _params(get_model(name).config).items()}
        torch.save({"model": tensors, "epoch": 300}, path)

    return make


def _microsoft_swin(path: Path) -> None:
    """A checkpoint of Microsoft's training script, with the arrays that its code keeps beside the weights."""
    config = get_model(path.stem).config
    table = FORMATS["microsoft-swin"].names.write(conversion.TensorTable.of(_params(config)), config)
    torch.save({"model": {name: torch.tensor(array) for name, array in table.items()}, "epoch": 299}, path)


def _dinov3(dtype: torch.dtype = torch.float32) -> Callable[[Path], None]:
    """A small DINOv3 as its authors save it, with periods of a dtype."""

    def make(path: Path) -> None:
        config = get_model("vit_small_patch16_dinov3_qkvb").config.replace(pool="token")
        table = FORMATS["dinov3"].names.write(conversion.TensorTable.of(_params(config)), config)
        tensors = {name: torch.tensor(array) for name, array in table.items()}
        torch.save(tensors | {"rope_embed.periods": tensors["rope_embed.periods"].to(dtype)}, path)

    return make


def _small_swin(form: str, **changes: object) -> Callable[[Path], None]:
    """A small Swin Transformer of version 2 whose last maps are smaller than its windows."""

    def make(path: Path) -> None:
        config = SMALL_SWIN.replace(**changes)
        conversion.save(conversion.Checkpoint.of(config, _params(config)), path, format=form)

    return make


def _unfolded_swin(path: Path) -> None:
    """The same as version 1, with the layers that merge patches in mmpretrain's order under timm's names."""
    config = SMALL_SWIN.replace(version=1, pretrained_window_sizes=0)
    params = _params(config)
    for name, array in params.items():
        if ".downsample." in name:
            parts = array.reshape(*array.shape[:-1], 4, -1)[..., [0, 2, 1, 3], :]
            params[name] = parts.swapaxes(-1, -2).reshape(array.shape).copy()
    conversion.save(conversion.Checkpoint.of(config, params), path, format="timm")


def _own_size(path: Path) -> None:
    """A size that no name has."""
    config = ViTConfig(image_size=(64, 32), patch_size=8, embed_dim=96, depth=4, num_heads=6, num_classes=10)
    save_file(_params(config), path)


def _mlp_head(path: Path) -> None:
    """A model whose head somebody replaced by two layers."""
    config = get_model("deit_tiny_patch16_224").config.replace(num_classes=0)
    head = torch.nn.Sequential(torch.nn.Linear(192, 96), torch.nn.GELU(), torch.nn.Dropout(), torch.nn.Linear(96, 5))
    tensors = {name: torch.tensor(array) for name, array in _params(config).items()}
    torch.save(tensors | {f"head.{name}": tensor for name, tensor in head.state_dict().items()}, path)


def _two_towers(path: Path) -> None:
    """An image tower with stacked blocks beside the beginning of a text tower, as SigLIP's files are."""
    config = get_model("vit_tiny_patch16_224").config.replace(
        activation="gelu_tanh", class_token=False, pool="map", num_classes=0, pos_embed="patch"
    )
    table = FORMATS["big-vision-scan"].names.write(conversion.TensorTable.of(_params(config)), config)
    tower = {f"params/img/{name}": array for name, array in table.items()}
    text = {"params/txt/head/bias": np.zeros(3), "params/t": np.array(2.3), "params/b": np.array(-10.0)}
    with path.open("wb") as file:
        np.savez(file, **tower, **text)


def _by_hand(path: Path) -> None:
    """A model under names of its own, which no format has."""
    config = get_model("vit_tiny_patch16_224").config.replace(depth=2)
    words = {"blocks": "layers", "attn.qkv": "mixer.joint", "attn.proj": "mixer.out", "mlp.fc": "ff.",
             "cls_token": "cls", "pos_embed": "places", "patch_embed.proj": "patches", "head": "classes"}  # fmt: skip

    def renamed(name: str) -> str:
        for ours, theirs in words.items():
            name = name.replace(ours, theirs)
        return name

    torch.save({renamed(name): torch.tensor(array) for name, array in _params(config).items()}, path)


def _copies(path: Path) -> None:
    """What a script saves that forgets to unreplicate the parameters of eight devices."""
    _saved("vit_tiny_patch16_224", "google", **GOOGLE, depth=1)(path)
    copies = {name: np.stack([array] * 8) for name, array in np.load(path).items()}
    np.savez(path, **copies)


GOOGLE = {"activation": "gelu_tanh", "pos_embed_resize": "scipy-zoom"}
SMALL_SWIN = SwinConfig().replace(
    version=2, image_size=(64, 128), embed_dim=32, depths=(2, 2, 2), num_heads=(2, 4, 8), window_sizes=8,
    pretrained_window_sizes=0, pad_order="roll_pad", num_classes=10,
)  # fmt: skip
FILES: dict[str, Callable[[Path], None]] = {
    "Ti_16.npz": _saved("vit_tiny_patch16_224", "google", **GOOGLE),
    "copies.npz": _copies,
    "siglip.npz": _two_towers,
    "ti.safetensors": _saved("vit_tiny_patch16_224", "timm"),
    "hand.pth": _by_hand,
    "dino_head.safetensors": _saved("vit_tiny_patch16_224", "timm", layer_scale=1e-5, num_classes=10),
    "bare.safetensors": _bare("deit_tiny_patch16_224"),
    "nan.safetensors": _bare("deit_tiny_patch16_224", 3),
    "vit_s_focus.onnx": _fetched(fetch_dinov2_onnx),
    "coffee.png": _fetched(fetch_photograph),
    "deit.pth": _pickled("deit_tiny_distilled_patch16_224"),
    "vit.pth": _pickled("vit_tiny_patch16_224"),
    "own_size.safetensors": _own_size,
    "mlp_head.pth": _mlp_head,
    "dinov3.pth": _dinov3(),
    "rounded.pth": _dinov3(torch.bfloat16),
    "bare_eva.safetensors": _bare("eva02_tiny_patch14_336"),
    "pe.safetensors": _bare("vit_pe_core_tiny_patch16_384"),
    "rope_mixed.safetensors": _bare("vit_small_patch16_rope_mixed_224"),
    "qwen3_vl.safetensors": _bare("qwen3_vit_88m_enc", form="huggingface-qwen3-vl"),
    "sapiens2.safetensors": _bare("vit_base_patch16_sapiens2"),
    "relpos.safetensors": _bare("vit_relpos_medium_patch16_cls_224", form="timm-relpos"),
    "swin_tiny_patch4_window7_224.pth": _microsoft_swin,
    "of_timm.safetensors": _small_swin("timm"),
    "of_torchvision.pth": _small_swin("torchvision", window_rule="pad", pad_order="pad_roll"),
    "swin.safetensors": _small_swin("timm", version=1),
    "renamed.safetensors": _unfolded_swin,
    "digits_swin.safetensors": _carried,
    "swinv2.safetensors": _bare("swinv2_base_window12to24_192to384"),
}
"""Name of a file that examples start from → what makes it."""


def rewritten(page: Path) -> str:
    """The page with what its examples print now."""
    text = page.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        variables = (
            {"XDG_CACHE_HOME": f"{folder}/cache"} | stack.enter_context(google("pod")).environment
            if ("gs://pod" in text)
            else {}
        )
        for name, make in FILES.items():
            if name in text:
                make(Path(folder) / name)
        for block in TITLED.finditer(text):
            (Path(folder) / block["name"]).write_text(block["program"], encoding="utf-8")
        return EXAMPLE.sub(lambda found: _run(found, Path(folder), variables), text)


def _run(example: re.Match[str], folder: Path, variables: Mapping[str, str]) -> str:
    session = example["session"]
    if session is None:
        (folder / "example.py").write_text(example["program"], encoding="utf-8")
        printed = _printed("python example.py", folder, variables, must_succeed=True)
        return f"```python\n{example['program']}```\n\n```text\n{printed}```\n"
    commands = [line for line in session.splitlines() if line.startswith("$ ")]
    recorded = "".join(f"{command}\n{_printed(command.removeprefix('$ '), folder, variables)}" for command in commands)
    return f"```console\n{recorded}```\n"


def _printed(command: str, folder: Path, variables: Mapping[str, str], *, must_succeed: bool = False) -> str:
    """Standard output, then standard error; sessions also show commands that fail, programs must not."""
    with tempfile.TemporaryDirectory() as programs:
        for name, arguments in (("vitport", "-m vit_cli.main"), ("python", "")):
            script = Path(programs) / name
            script.write_text(f'#!/bin/sh\nexec {sys.executable} {arguments} "$@"\n')
            script.chmod(0o755)
        environment = {"PYTHONPATH": str(ROOT), "PATH": f"{programs}:/usr/bin:/bin", "PYTHONWARNINGS": "ignore"}
        environment |= {"JAX_PLATFORMS": "cpu", **variables}  # else libtpu tells that there is no TPU
        done = subprocess.run(
            command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
    if must_succeed and done.returncode:
        raise RuntimeError(f"An example fails with status {done.returncode}:\n{done.stderr}")
    lines = (line for line in (done.stdout + done.stderr).splitlines() if "google_auth_provider.cc" not in line)
    return "".join(f"{line.rstrip()}\n" for line in lines)


def main(pages: Annotated[tuple[Path, ...], tyro.conf.Positional] = (), check: bool = False) -> int:
    """Run the examples of the documentation.

    Args:
        pages: Markdown files; none means the README and every page in docs/.
        check: Write nothing; compare what is printed now with the pages, numbers aside.

    Returns:
        0; with ``check`` 1 where a page differs.
    """
    differences: list[str] = []
    for page in pages or (ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))):
        before = page.read_text(encoding="utf-8")
        if EXAMPLE.search(before) is None:
            continue
        after = rewritten(page)
        if not check:
            page.write_text(after, encoding="utf-8")
        else:
            masked = ([NUMBER.sub("#", line) for line in text.splitlines()] for text in (before, after))
            differences += difflib.unified_diff(*masked, fromfile=str(page), tofile="now", lineterm="")
    sys.stdout.writelines(f"{line}\n" for line in differences)
    return int(bool(differences))


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
