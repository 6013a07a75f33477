"""The two packages read line for line: the same files, classes, arguments and attributes, in the same order."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TORCH, JAX = ROOT / "vit_torch", ROOT / "vit_jax"
FILES = sorted(str(path.relative_to(TORCH)) for path in TORCH.rglob("*.py"))

# What JAX needs and PyTorch does not: random numbers and dtypes are passed, the mode is an attribute of the module.
JAX_ARGUMENTS = {"rngs", "dtype", "param_dtype"}
JAX_ATTRIBUTES = {"dtype", "param_dtype", "deterministic"}
JAX_FUNCTIONS = {"softmax", "attend_cudnn"}  # PyTorch's softmax takes bfloat16 in float32, and its kernels choose cuDNN
# Counterparts of what PyTorch brings along: state_dict and load_state_dict; nn.Dropout; nn.Linear and nn.LayerNorm. And
# what devices of a mesh share; and what spares `import vit_jax` the libraries, which `import vit_torch` has loaded.
JAX_FILES = {"params.py", "serialization.py", "layers/dropout.py", "lazy.py"}
JAX_ROOMS = {"inference", "training", "xla"}


def definitions(path: Path, kind: type) -> dict[str, ast.AST]:
    tree = ast.parse(path.read_text())
    return {node.name: node for node in tree.body if isinstance(node, kind) and not node.name.startswith("_")}


def arguments(function: ast.FunctionDef) -> list[tuple[str, str | None]]:
    """Names and defaults, in order."""
    a = function.args
    defaults = [None] * (len(a.args) - len(a.defaults)) + a.defaults + a.kw_defaults
    return [
        (arg.arg, None if default is None else ast.unparse(default))
        for arg, default in zip(a.args + a.kwonlyargs, defaults, strict=True)
        if arg.arg not in JAX_ARGUMENTS
    ]


def methods(node: ast.AST) -> dict[str, ast.FunctionDef]:
    names = {"forward": "__call__"}
    found = {names.get(item.name, item.name): item for item in ast.walk(node) if isinstance(item, ast.FunctionDef)}
    return {name: method for name, method in found.items() if name in ("__init__", "__call__") or name[0] != "_"}


def attributes(function: ast.FunctionDef) -> list[str]:
    """What ``self`` is given, in order."""
    targets = [target for node in ast.walk(function) if isinstance(node, ast.Assign) for target in node.targets]
    targets.sort(key=lambda target: target.lineno)
    return [
        target.attr
        for target in targets
        if isinstance(target, ast.Attribute)
        and ast.unparse(target.value) == "self"
        and target.attr not in JAX_ATTRIBUTES
    ]


def test_the_files_are_the_same_but_for_what_pytorch_brings_along():
    ours = (path.relative_to(JAX) for path in JAX.rglob("*.py"))
    assert sorted(str(path) for path in ours if not JAX_ROOMS & set(path.parts) and str(path) not in JAX_FILES) == FILES


@pytest.mark.parametrize("file", FILES)
def test_classes_have_the_same_names_arguments_defaults_and_attributes(file: str):
    ours, theirs = (definitions(package / file, ast.ClassDef) for package in (TORCH, JAX))
    assert list(ours) == list(theirs)
    for name in ours:
        in_torch, in_jax = methods(ours[name]), methods(theirs[name])
        in_torch.pop("extra_repr", None)  # nnx prints a module's fields by itself
        assert list(in_torch) == list(in_jax), name
        for method in in_torch:
            assert arguments(in_torch[method]) == arguments(in_jax[method]), f"{name}.{method}"
            assert attributes(in_torch[method]) == attributes(in_jax[method]), f"{name}.{method}"


@pytest.mark.parametrize("file", FILES)
def test_functions_have_the_same_names_and_arguments(file: str):
    ours, theirs = (definitions(package / file, ast.FunctionDef) for package in (TORCH, JAX))
    assert list(ours) == [name for name in theirs if name not in JAX_FUNCTIONS]
    for name, function in ours.items():
        assert isinstance(function, ast.FunctionDef)
        other = [argument for argument in arguments(theirs[name]) if argument[0] != "key"]
        assert [argument for argument in arguments(function) if argument[0] != "dtype"] == other, name


def test_both_packages_export_the_same_names():
    def exported(package: Path) -> list[str]:
        tree = ast.parse((package / "__init__.py").read_text())
        (value,) = (node.value for node in tree.body if isinstance(node, ast.Assign))
        return ast.literal_eval(value)

    assert exported(TORCH) == [
        name for name in exported(JAX) if name not in ("attend_cudnn", "get_params", "set_params")
    ]
