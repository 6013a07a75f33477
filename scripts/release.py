"""Builds a release and says how to publish it: ``python -m scripts.release``.

Refuses a tree that is not ready: changes that are not committed, a version that CHANGELOG.md does not date, or one that
has been tagged. Publishing is what .github/workflows/release.yml does on a tag; it calls ``python -m scripts.release
TAG``, which must be the version's.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent


def main(args: Sequence[str], root: Path = ROOT) -> int:
    """Check, build into ``dist/``, and print the next steps; 1 where the tree is not ready."""
    version = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    if faults := [
        *changelog_faults((root / "CHANGELOG.md").read_text(), version),
        *tree_faults(root),
        *tag_faults(root, version, *args),
    ]:
        sys.stderr.write("".join(f"{fault}\n" for fault in faults))
        return 1
    shutil.rmtree(root / "dist", ignore_errors=True)
    subprocess.run([sys.executable, "-m", "build", "--outdir", root / "dist", root], check=True)
    built = sorted(path.name for path in (root / "dist").iterdir())
    expected = [f"vitport-{version}-py3-none-any.whl", f"vitport-{version}.tar.gz"]
    if built != expected:
        sys.stderr.write(f"dist/ holds {built}, expected {expected}: look at what `python -m build` printed.\n")
        return 1
    sys.stdout.write(
        f"dist/ holds {' and '.join(built)}. To publish them:\n"
        f"  .ci/run && .ci/newest-jax && .ci/torch-alone\n"
        f"  git tag -a v{version} -m 'vitport {version}' && git push origin v{version}\n"
        f"The tag starts .github/workflows/release.yml, which publishes the distributions and the documentation.\n"
    )
    return 0


def changelog_faults(text: str, version: str) -> list[str]:
    """What stops a release: the newest heading must be this version with its date, as in ``## 0.1.0 (2026-11-27)``."""
    heading = re.search(r"^## (\S+) \((.*)\)$", text, re.MULTILINE)
    if heading is None:
        return ["CHANGELOG.md has no heading such as `## 0.1.0 (2026-11-27)`: add one for this version."]
    faults = []
    if heading[1] != version:
        faults.append(f"CHANGELOG.md begins with {heading[1]}, pyproject.toml says {version}: make them the same.")
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", heading[2]):
        faults.append(f"CHANGELOG.md dates {heading[1]} {heading[2]!r}: write the day of the release, as 2026-11-27.")
    return faults


def tree_faults(root: Path) -> list[str]:
    """What stops a release: changes that no commit holds."""
    if _git(root, "status", "--porcelain"):
        return ["The tree has changes that are not committed: commit them, because a release is a commit."]
    return []


def tag_faults(root: Path, version: str, tag: str | None = None) -> list[str]:
    """What stops a release: a tag of another version, or, where none is given, one of this version that exists."""
    if tag is not None and tag != f"v{version}":
        return [f"The tag is {tag}, pyproject.toml says {version}: tag v{version}, or change the version."]
    if tag is None and _git(root, "tag", "--list", f"v{version}"):
        return [f"v{version} is tagged already: raise the version in pyproject.toml."]
    return []


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
