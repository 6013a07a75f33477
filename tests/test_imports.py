"""The arrows of docs/architecture.md, kept by running each package with what it must not need blocked."""

from __future__ import annotations

import ast
import re
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


def test_vit_spec_needs_the_standard_library_alone() -> None:
    code = """
import sys
class StandardLibraryAlone:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] not in sys.stdlib_module_names | {"vit_spec"}:
            raise ImportError(f"{name} is not in the standard library")
sys.meta_path.insert(0, StandardLibraryAlone)
import vit_spec
print(all(vit_spec.forward_flops(model.config) for model in vit_spec.list_models()))
"""
    assert _run(code, set()) == "True\n"


def test_vitport_needs_little_beside_the_standard_library_until_it_is_asked_for_something() -> None:
    code = """
import sys
class Little:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] not in sys.stdlib_module_names | {"vit_spec", "vitport", "lazy_loader", "packaging"}:
            raise ImportError(f"{name} is neither ours nor of the standard library")
sys.meta_path.insert(0, Little)
import vitport
print(vitport.list_models("vit_tiny_patch16_224"))
"""
    assert _run(code, set()) == "['vit_tiny_patch16_224']\n"


def test_vit_torch_works_without_jax() -> None:
    code = """
import torch, vit_spec, vit_torch
config = vit_spec.ViTConfig(image_size=8, patch_size=4, embed_dim=12, num_heads=3, depth=1, num_classes=3)
model = vit_torch.create_model(config).eval()
print(tuple(model(torch.zeros(1, 3, 8, 8)).shape))
"""
    assert _run(code, {"jax", "jaxlib", "flax", "orbax", "vit_jax"}) == "(1, 3)\n"


def test_vit_jax_works_without_torch() -> None:
    code = """
import jax.numpy as jnp, vit_jax, vit_spec
config = vit_spec.ViTConfig(image_size=8, patch_size=4, embed_dim=12, num_heads=3, depth=1, num_classes=3)
model = vit_jax.create_model(config)
model.eval()
print(model(jnp.zeros((1, 8, 8, 3))).shape)
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


def test_conversion_works_without_what_windows_lacks(tmp_path) -> None:
    """No ``fcntl``, and none of the functions and flags of POSIX that writing a file uses elsewhere."""
    code = f"""
import mmap, os, sys
for module, names in ((os, ("O_DIRECT", "pwrite", "posix_fadvise")), (mmap, ("MAP_PRIVATE", "MADV_HUGEPAGE"))):
    for name in names:
        module.__dict__.pop(name, None)
import numpy as np, conversion, vit_spec
size = dict(image_size=8, patch_size=4, embed_dim=768, num_heads=3, depth=1, num_classes=2)
config = vit_spec.ViTConfig(**size, activation="gelu_tanh")
rng = np.random.default_rng(0)
params = {{p.name: rng.normal(size=p.shape).astype("float32") for p in vit_spec.parameters(config)}}
for name, form in (("w.safetensors", "timm"), ("w.npz", "google")):
    path = {str(tmp_path)!r} + "/" + name
    conversion.save(conversion.Checkpoint.of(config, params), path, format=form)
    found = conversion.load(path).params
    print(all(np.array_equal(found[key], params[key]) for key in params))
"""
    assert _run(code, {"fcntl"}) == "True\nTrue\n"


def test_importing_conversion_imports_no_library_that_only_a_reader_needs() -> None:
    code = """
import sys, conversion
print(sorted({"torch", "jax", "jaxlib", "flax", "onnx", "orbax", "PIL", "scipy"} & set(sys.modules)))
"""
    assert _run(code, set()) == "[]\n"


def test_the_command_line_starts_without_the_frameworks() -> None:
    _run("import vit_cli.main", {"torch", "jax", "jaxlib", "flax", "onnx", "orbax", "numpy", "PIL"})


def test_the_options_of_training_need_no_jax() -> None:
    code = """
from vit_cli.main import main
from vit_jax.training.recipe import config, data, execution, presets, recipe
try:
    main(["train", "--help"])
except SystemExit as end:
    print(end.code)
"""
    told = _run(code, {"jax", "jaxlib", "flax", "optax", "orbax", "grain", "conversion"})
    assert told.startswith("usage: vitport train ")
    assert "--recipe.optimizer.weight-decay" in told
    assert told.endswith("\n0\n")


def test_nothing_outside_training_imports_it() -> None:
    found = [
        path
        for path in sorted((ROOT / "vit_jax").rglob("*.py"))
        if ROOT / "vit_jax/training" not in path.parents and "vit_jax.training" in path.read_text()
    ]
    assert found == []


ALLOWED = {
    "vitport": {"vit_spec", "conversion", "vit_parity", "lazy_loader"},  # its modules are imported at their first use
    "vit_spec": set(),
    "vit_torch": {"vit_spec", "torch", "jaxtyping"},
    "vit_jax": {"vit_spec", "jax", "flax", "jaxtyping", "lazy_loader", "numpy"},
    "vit_jax/inference": {"vit_spec", "vit_jax", "jax", "flax", "numpy"},
    "vit_jax/training": {"vit_spec", "vit_jax", "conversion", "jax", "flax", "numpy", "optax", "orbax", "lazy_loader"},
    "vit_jax/training/data": {"vit_spec", "vit_jax", "conversion", "numpy"},
    "conversion": {"vit_spec", "numpy", "ml_dtypes", "safetensors", "isal"},
}
INSIDE_FUNCTIONS = {
    "vitport": {"vit_torch", "vit_jax"},
    "vit_spec": set(),
    "vit_torch": {"conversion"},
    "vit_jax": {"conversion"},
    "vit_jax/inference": {"conversion"},
    "vit_jax/training": {"matplotlib", "tensorboardX", "pydantic", "scipy", "wandb", "mlflow"},
    "vit_jax/training/data": {"grain", "array_record", "absl", "cloudpickle", "PIL", "sklearn", "pyarrow"},
    "conversion": {
        "torch",
        "jax",
        "flax",
        "msgpack",
        "onnx",
        "orbax",
        "tensorstore",
        "PIL",
        "huggingface_hub",
        "scipy",
        "yaml",
    },
}
"""What may besides be imported where it is used: `create_model` reads weights, a reader its own library."""
FORMATS = ROOT / "conversion/formats/__init__.py"
"""Imports by name every module of its own folder, each of which is held to the arrows like any other."""
FAMILY = ROOT / "vit_spec/family.py"
"""Imports by name the modules of a package that are named after families, for callers in that package alone."""


def _imports(source: str) -> tuple[set[str], set[str]]:
    """Packages that a file imports as a whole, and those that it imports inside functions or for type checkers."""
    tree = ast.parse(source)
    names: dict[ast.AST, set[str]] = {
        node: {alias.name for alias in node.names} if isinstance(node, ast.Import) else {str(node.module)}
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    tops = {name.partition(".")[0] for node in tree.body for name in names.get(node, ())}
    return tops, {name.partition(".")[0] for group in names.values() for name in group} - tops


def test_imports_are_found_wherever_they_are() -> None:
    source = """
import os.path, numpy as np
from vit_spec.vit.config import ViTConfig
if TYPE_CHECKING:
    import jax
class A:
    def f(self):
        from torch.nn import functional
"""
    assert _imports(source) == ({"os", "numpy", "vit_spec"}, {"jax", "torch"})


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_follow_the_arrows(package) -> None:
    own = {package} | set(sys.stdlib_module_names)
    below = [other for other in ALLOWED if other.startswith(f"{package}/")]
    paths = [
        path for path in sorted((ROOT / package).rglob("*.py")) if not any((ROOT / at) in path.parents for at in below)
    ]
    assert paths
    for path in paths:
        source = path.read_text()
        at_the_top, inside = _imports(source)
        assert at_the_top <= ALLOWED[package] | own, path
        everywhere = package in ("vitport", "conversion", "vit_jax/training", "vit_jax/training/data")
        here = INSIDE_FUNCTIONS[package] if everywhere or path.name in ("create.py", "compile.py") else set()
        assert inside <= here | ALLOWED[package] | own, path
        if path not in (FORMATS, FAMILY):
            assert "import_module" not in source, f"{path} imports by a name that this test cannot see"
        for asked in re.findall(r"(?:family|needed)_module\(([^,]+),", source if path != FAMILY else ""):
            assert asked in ("__name__", '__package__ or ""') or asked.strip('"').partition(".")[0] == package, path
        assert "__import__" not in source, f"{path} imports by a name that this test cannot see"


def test_what_is_tested_without_jax_imports_no_jax() -> None:
    """The command is run before releases alone; helpers of the tests count too."""
    command = (ROOT / ".ci" / "torch-alone").read_text().splitlines()[-1]
    waiting = [path for word in re.findall(r"tests/\S+", command) for path in _test_files(ROOT / word)]
    assert len(waiting) > 20
    seen = {ROOT / "tests" / "conftest.py"}
    while waiting:
        path = waiting.pop()
        seen.add(path)
        tree = ast.parse(path.read_text())
        names = [it.name for node in tree.body if isinstance(node, ast.Import) for it in node.names]
        names += [it.module or "" for it in tree.body if isinstance(it, ast.ImportFrom)]
        assert not {name.partition(".")[0] for name in names} & {"jax", "flax", "optax", "orbax", "vit_jax"}, path
        helpers = [ROOT / f"{name.replace('.', '/')}.py" for name in names if name.startswith("tests.")]
        waiting += [it for it in helpers if it.is_file() and it not in seen]


def _test_files(path: Path) -> list[Path]:
    return [path] if path.suffix else [*path.rglob("test_*.py"), *path.rglob("conftest.py")]
