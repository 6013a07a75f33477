"""Public names are imported at their first use. The oracle is the stub, which type checkers read."""

from __future__ import annotations

import ast
import json
import pkgutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

pytestmark = pytest.mark.jax_alone

ROOT = Path(__file__).parents[2]
PACKAGES = ("vit_jax", "vit_jax.training")


def told(package: str) -> dict[str, str]:
    """Name → the module that the package's stub imports it from."""
    tree = ast.parse((ROOT / package.replace(".", "/") / "__init__.pyi").read_text())
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    # Type checkers take a stub's import for a public name if it is written `X as X`.
    assert all(alias.asname == alias.name for node in imports for alias in node.names)
    return {alias.name: f"{package}.{node.module}" for node in imports for alias in node.names}


def in_new_process(code: str) -> object:
    script = f"import json, sys\n{code}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_a_package_imports_no_library_and_lists_its_names(package):
    code = f"""
import {package}
listed = dir({package})
print(json.dumps([listed, sorted({{"jax", "jaxlib", "flax", "optax", "orbax", "numpy"}} & set(sys.modules))]))
"""
    listed, libraries = in_new_process(code)
    assert libraries == []
    assert listed == sorted(set(listed))
    assert set(import_module(package).__all__) <= set(listed)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_name_is_the_object_of_its_module(package):
    module = import_module(package)
    assert sorted(told(package)) == sorted(module.__all__)
    for name, home in told(package).items():
        assert getattr(module, name) is getattr(import_module(home), name), name


def test_a_star_imports_every_name():
    code = """
from vit_jax import *
import vit_jax
print(json.dumps([name for name in vit_jax.__all__ if globals().get(name) is not getattr(vit_jax, name)]))
"""
    assert in_new_process(code) == []


@pytest.mark.parametrize("package", [*PACKAGES, "vit_torch"])
def test_no_name_is_a_submodule_too(package):
    """Whichever was imported last would have the name."""
    if package == "vit_torch":
        pytest.importorskip("torch")
    module = import_module(package)
    assert set(module.__all__).isdisjoint(entry.name for entry in pkgutil.iter_modules(module.__path__))


@pytest.mark.parametrize("package", PACKAGES)
def test_an_unknown_name_is_an_attribute_error(package):
    with pytest.raises(AttributeError, match=f"No {package} attribute jax_numpy"):
        import_module(package).jax_numpy  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'jax_numpy'"):
        exec(f"from {package} import jax_numpy")
