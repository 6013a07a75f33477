"""What is published, wheel and source distribution. Oracle: the files of the source tree, and a real install."""

from __future__ import annotations

import fnmatch
import os
import shutil
import site
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PATTERNS = PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
PACKAGES = sorted(
    path.name for path in ROOT.iterdir()
    if (path / "__init__.py").is_file() and any(fnmatch.fnmatch(path.name, pattern) for pattern in PATTERNS)
)  # fmt: skip


def sources() -> set[str]:
    """Every file of the published packages, Python's caches aside."""
    files = (path for name in PACKAGES for path in (ROOT / name).rglob("*") if path.is_file())
    return {path.relative_to(ROOT).as_posix() for path in files if "__pycache__" not in path.parts}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist of the tree and the wheel of that sdist, made without a network.

    The tree is copied first: setuptools leaves ``build/`` in it, from which the next wheel would take stale files.
    """
    tree, output = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("dist")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    _run(sys.executable, "-m", "build", "--no-isolation", "--outdir", output, tree)
    return output


def _run(*command: str | Path, **environment: str) -> str:
    """What a command prints, which must end well; in a folder and with variables that do not import this tree."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT.anchor, env=kept | environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_package_of_the_tree_is_published_or_for_developers() -> None:
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages - set(PACKAGES) == {"benchmarks", "tests"}


def test_the_wheel_holds_every_file_of_its_packages_and_no_other(built: Path) -> None:
    """The demo's weights, its image and the markers of typed packages among them."""
    (wheel,) = built.glob("*.whl")
    names = [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name]
    assert len(names) == len(set(names))
    assert set(names) == sources()
    assert {f"{name}/py.typed" for name in PACKAGES} | {"vit_cli/assets/digits_vit.safetensors"} <= set(names)


def test_the_source_distribution_holds_them_too(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert sources() | {"pyproject.toml", "README.md", "LICENSE"} <= names


def test_an_installed_wheel_runs_the_demo_without_a_network(built: Path, tmp_path: Path) -> None:
    """In a fresh environment. A .pth file shows it this one's libraries; paths that it names bring no editable install.

    Without onnx's weights the digits model stands in, which `tests/vit_cli/test_demo.py` holds to its numbers.
    """
    (wheel,) = built.glob("*.whl")
    venv.create(tmp_path / "env", with_pip=False)
    python = next(path for path in (tmp_path / "env").glob("*/python*") if path.stem == "python")
    pip = ("-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index")
    _run(sys.executable, *pip, wheel)
    ours = _run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    (Path(ours) / "libraries.pth").write_text("\n".join(site.getsitepackages()))
    places = _run(python, "-c", f"import {', '.join(PACKAGES)}; print(*({'.__file__, '.join(PACKAGES)}.__file__,))")
    assert all(place.startswith(ours) for place in places.split())
    command = python.with_name("vitport").with_suffix(python.suffix)
    offline = {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(tmp_path),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    assert _run(command, "--version", **offline) == f"vitport {PROJECT['project']['version']}\n"
    printed = _run(command, "demo", "--output", tmp_path / "demo.png", **offline)
    assert "stands in for DINOv2" in printed
    assert "Digits ViT at 8x8 on digits.png" in printed
    assert (tmp_path / "demo.png").is_file()
