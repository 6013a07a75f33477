"""The arrows of docs/architecture.md, kept by running each package with what it must not need blocked."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BLOCK = "import sys; sys.modules |= dict.fromkeys({blocked!r})\n"
"""A module that is None in this table cannot be imported, and is not found by those who only look for it."""


def _run(code: str, blocked: set[str]) -> str:
    script = BLOCK.format(blocked=blocked) + code
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


EVERYTHING = {"numpy", "torch", "jax", "flax", "safetensors", "onnx", "orbax", "tyro", "rich", "PIL", "transformers"}


def test_vit_spec_needs_the_standard_library_alone() -> None:
    _run("import vit_spec; vit_spec.list_models()", EVERYTHING)


def test_vit_torch_works_without_jax() -> None:
    code = """
import torch, vit_torch
model = vit_torch.create_model("vit_tiny_patch16_224", num_classes=3).eval()
print(tuple(model(torch.zeros(1, 3, 224, 224)).shape))
"""
    assert _run(code, {"jax", "jaxlib", "flax", "orbax", "vit_jax"}) == "(1, 3)\n"


def test_vit_jax_works_without_torch() -> None:
    code = """
import jax.numpy as jnp, vit_jax
model = vit_jax.create_model("vit_tiny_patch16_224", num_classes=3)
model.eval()
print(model(jnp.zeros((1, 224, 224, 3))).shape)
"""
    assert _run(code, {"torch", "vit_torch", "transformers"}) == "(1, 3)\n"


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_each_framework_loads_a_safetensors_file_without_the_other(framework, tmp_path) -> None:
    code = f"""
import numpy as np, conversion, vit_spec
config = vit_spec.ViTConfig(image_size=8, patch_size=4, embed_dim=12, num_heads=3, depth=1, num_classes=2)
rng = np.random.default_rng(0)
params = {{p.name: rng.normal(size=p.shape).astype("float32") for p in vit_spec.parameters(config)}}
conversion.save(conversion.Checkpoint.of(config, params), {str(tmp_path / "w")!r}, format="timm")
import vit_{framework}
print(vit_{framework}.create_model(weights={str(tmp_path / "w")!r}).config == config)
"""
    others = {"torch": {"jax", "jaxlib", "flax", "orbax"}, "jax": {"torch"}}[framework]
    assert _run(code, others | {"onnx", "transformers"}) == "True\n"


def test_conversion_reads_and_writes_safetensors_with_neither_framework(tmp_path) -> None:
    code = f"""
import numpy as np, conversion, vit_spec
config = vit_spec.ViTConfig(image_size=8, patch_size=4, embed_dim=12, num_heads=3, depth=1, num_classes=2)
params = {{p.name: np.ones(p.shape, "float32") for p in vit_spec.parameters(config)}}
conversion.save(conversion.Checkpoint.of(config, params), {str(tmp_path / "w")!r}, format="timm")
print(conversion.load({str(tmp_path / "w")!r}).config == config)
"""
    assert _run(code, {"torch", "jax", "jaxlib", "flax", "onnx", "orbax", "tyro", "rich", "PIL"}) == "True\n"


def test_the_command_line_starts_without_the_frameworks() -> None:
    _run("import vit_cli.main", {"torch", "jax", "jaxlib", "flax", "onnx", "orbax", "numpy", "PIL"})


ALLOWED = {
    "vit_spec": set(),
    "vit_torch": {"vit_spec", "torch"},
    "vit_jax": {"vit_spec", "jax", "flax"},
    "conversion": {"vit_spec", "numpy", "ml_dtypes", "safetensors"},
}
INSIDE_FUNCTIONS = {
    "vit_spec": set(),
    "vit_torch": {"conversion"},
    "vit_jax": {"conversion"},
    "conversion": {"torch", "jax", "onnx", "google", "orbax", "PIL"},
}
"""What may besides be imported where it is used: `create_model` reads weights, a reader its own library."""


def _imports(path: Path) -> tuple[set[str], set[str]]:
    """Packages that a file imports as a whole, and inside functions or for type checkers."""
    tree = ast.parse(path.read_text())
    names: dict[ast.AST, set[str]] = {
        node: {alias.name for alias in node.names} if isinstance(node, ast.Import) else {str(node.module)}
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    tops = {name.partition(".")[0] for node in tree.body for name in names.get(node, ())}
    return tops, {name.partition(".")[0] for group in names.values() for name in group} - tops


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_follow_the_arrows(package) -> None:
    own = {package} | set(sys.stdlib_module_names)
    for path in (ROOT / package).rglob("*.py"):
        tops, inner = _imports(path)
        assert tops <= ALLOWED[package] | own, path
        allowed_inner = INSIDE_FUNCTIONS[package] if package == "conversion" or path.name == "create.py" else set()
        assert inner <= allowed_inner | ALLOWED[package] | own, path
