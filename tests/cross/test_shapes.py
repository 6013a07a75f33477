"""The shapes in the models' annotations hold, and annotations cost users nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import vit_jax
import vit_torch

ROOT = Path(__file__).parents[2]
CHECKED = [f"{package}.{room}" for package in ("vit_torch", "vit_jax") for room in ("layers", "vit")]
FILES = sorted(path for room in CHECKED for path in (ROOT / room.replace(".", "/")).rglob("*.py"))
WITHOUT_A_SHAPE = {
    "attend", "attend_cudnn", "attend_flash", "attend_fused",  # what drops attention weights
    "drop_path", "keep_mask",  # random keys, () or (B,)
    "set_attention",  # a function like `attend`
    "apart",  # of any shape
    "unpacked",  # as many axes as it is asked for
}  # fmt: skip


def bare_arrays(function: ast.FunctionDef) -> list[ast.expr]:
    """Annotations of a function that name an array and no shape."""
    a = function.args
    given = [arg.annotation for arg in (*a.args, *a.kwonlyargs, *filter(None, [a.vararg]))]
    found = []
    for annotation in filter(None, [*given, function.returns]):
        with_shape = {
            id(part)
            for node in ast.walk(annotation)
            if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "Float"
            for part in ast.walk(node)
        }
        arrays = [node for node in ast.walk(annotation) if ast.unparse(node) in ("Tensor", "Array", "jax.Array")]
        found += [node for node in arrays if id(node) not in with_shape]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_public_functions_say_the_shapes_of_their_arrays(path: Path) -> None:
    functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
    public = [function for function in functions if function.name[0] != "_" or function.name == "__call__"]
    bare = {function.name for function in public if bare_arrays(function)}
    assert bare <= WITHOUT_A_SHAPE | {"dropout"}  # random keys


def test_every_shape_holds_in_every_model(tmp_path: Path) -> None:
    """In a process of its own, where an import hook has beartype check every call of the annotated modules."""
    code = f"""
from pathlib import Path
from jaxtyping import install_import_hook
install_import_hook({[*CHECKED, "planted"]}, "beartype.beartype")
from tests.cross.run_with_shapes import main
main(Path({str(tmp_path)!r}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr


def test_nothing_is_checked_outside_of_that_process() -> None:
    for function in (vit_torch.Attention.forward, vit_torch.attend_fused, vit_jax.Attention.__call__):
        assert not hasattr(function, "__wrapped__")
        assert function.__code__.co_filename.endswith("attention.py")
