"""The two packages read line for line: the same files, classes, arguments and attributes, and the same calls in order.

Where the frameworks name one thing differently, or one of them needs something that the other does not, a table below
says so; what is in no table must be equal. ``tests/cross/test_parity.py`` proves that equal calls give equal numbers.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TORCH, JAX = ROOT / "vit_torch", ROOT / "vit_jax"
FILES = sorted(str(path.relative_to(TORCH)) for path in TORCH.rglob("*.py"))
MODELS = [file for file in FILES if "/" in file]  # the layers and the families: their bodies are compared too

# What JAX needs and PyTorch does not: random numbers and dtypes are arguments, the mode is an attribute of the module.
JAX_ARGUMENTS = {"rngs", "dtype", "param_dtype", "init"}
JAX_ATTRIBUTES = {"dtype", "param_dtype", "deterministic"}
JAX_CLASSES = {"Init", "Constant"}  # of those three arguments; a buffer that is static, or in PyTorch never rounded
JAX_FUNCTIONS = {"attend_cudnn", "attend_flash"}  # PyTorch chooses among its kernels by itself
# Counterparts of what PyTorch brings along: state_dict and load_state_dict, torch.export, nn.Dropout; and what training
# and inference share.
JAX_FILES = {"params.py", "serialization.py", "layers/dropout.py", "cores.py", "preprocessing.py", "pure.py"}
JAX_ROOMS = {
    "inference",
    "training",
    "xla",
}  # xla: nn.Linear, nn.LayerNorm and more, as XLA computes them best

# One thing by two names: those of JAX and those of PyTorch → the name that both are compared by.
SAME = {
    "__call__": "forward",
    "permute": "transpose",
    "swapaxes": "transpose",
    "cat": "concatenate",
    "chunk": "split",
    "expand": "broadcast_to",
    "bernoulli_": "keep_mask",  # x.new_empty(shape).bernoulli_(keep)
    "identity": "Identity",  # a function in JAX, a module in PyTorch
    "List": "ModuleList",
    "Param": "Parameter",
    "iter_modules": "modules",
    "_checkpoint": "checkpoint",  # torch.utils.checkpoint
    "issubdtype": "is_floating_point",
}
# Calls that only one of the frameworks needs.
# Modules are registered by their base class; a new head goes to the model's device and dtype; memory has an order; a
# function in a list of modules is one.
TORCH_CALLS = {"super", "__init__", "new_empty", "to", "contiguous", "ReLU"}
# Dtypes, random numbers, traced rates; arrays along an axis, whose gradients a TPU joins.
JAX_CALLS = {"astype", "Init", "_check_rngs", "dropout", "isinstance", "apart"}
ANY_CALLS = {"list"}
# Bodies that differ: initial values are drawn in other ways, and feature maps have other layouts.
DIFFERENT = {
    "layers/constant.py": {"make_constant", "make_table"},
    "layers/initialization.py": {
        "make_linear",
        "make_patch_conv",
        "make_tokens",
        "make_share",
        "make_frequencies",
        "initialize",
    },
    "layers/patch_embed.py": {"_tokens"},
}


class Calls(ast.NodeVisitor):
    """Callees and operators of a body, in the order of evaluation, by the names that the frameworks share."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def note(self, name: str) -> None:
        name = SAME.get(name, name)
        if name not in TORCH_CALLS | JAX_CALLS | ANY_CALLS:
            self.found.append(name)

    def visit_Call(self, node: ast.Call) -> None:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)
        if isinstance(node.func, ast.Attribute):
            self.visit(node.func.value)
        elif not isinstance(node.func, ast.Name):  # TABLE[name](...)
            self.visit(node.func)
        for part in [*node.args, *(keyword.value for keyword in node.keywords)]:
            self.visit(part)
        if name != "partial" or [keyword.arg for keyword in node.keywords] != ["rngs"]:  # else a function with its keys
            self.note(name)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.visit(node.value)
        if node.attr == "identity":
            self.note(node.attr)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        self.visit(node.left)
        self.visit(node.right)
        self.note(type(node.op).__name__)

    def visit_If(self, node: ast.If) -> None:
        if ast.unparse(node.test) != "rngs is None":  # random numbers are missing
            self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        for statement in node.body:  # not its annotations, defaults and decorators
            self.visit(statement)


def calls(function: ast.FunctionDef) -> list[str]:
    visitor = Calls()
    visitor.visit(function)
    return visitor.found


def definitions(path: Path, kind: type) -> dict[str, ast.AST]:
    """Public classes or functions of a file, in order, less those that JAX alone has."""
    tree = ast.parse(path.read_text())
    found = {node.name: node for node in tree.body if isinstance(node, kind) and not node.name.startswith("_")}
    return {name: node for name, node in found.items() if name not in JAX_CLASSES | JAX_FUNCTIONS}


def from_xla(path: Path) -> dict[str, ast.AST]:
    """Functions that a file of ``vit_jax`` imports from ``vit_jax.layers.xla``."""
    found: dict[str, ast.AST] = {}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("vit_jax.layers.xla."):
            room = definitions(ROOT / f"{str(node.module).replace('.', '/')}.py", ast.FunctionDef)
            found |= {alias.name: room[alias.name] for alias in node.names if alias.name in room}
    return found


def functions(file: str) -> tuple[dict[str, ast.AST], dict[str, ast.AST]]:
    """Those of PyTorch, and their twins: in the same file, or in the room that the file imports them from."""
    ours, theirs = (definitions(package / file, ast.FunctionDef) for package in (TORCH, JAX))
    room = from_xla(JAX / file)
    return ours, {name: theirs.get(name) or room[name] for name in ours if name in theirs or name in room} | theirs


def arguments(function: ast.AST) -> list[tuple[str, str | None]]:
    """Names and defaults, in order."""
    assert isinstance(function, ast.FunctionDef)
    a = function.args
    defaults = [None] * (len(a.args) - len(a.defaults)) + a.defaults + a.kw_defaults
    found = [
        (arg.arg, None if default is None else ast.unparse(default))
        for arg, default in zip(a.args + a.kwonlyargs, defaults, strict=True)
        if arg.arg not in JAX_ARGUMENTS
    ]
    return [*found, (f"*{a.vararg.arg}", None)] if a.vararg else found


def methods(node: ast.AST) -> dict[str, ast.FunctionDef]:
    found = {SAME.get(item.name, item.name): item for item in ast.walk(node) if isinstance(item, ast.FunctionDef)}
    return {name: method for name, method in found.items() if name not in JAX_CALLS | {"extra_repr"}}


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


def bodies(file: str) -> Iterator[tuple[str, ast.FunctionDef, ast.FunctionDef]]:
    """Name, PyTorch's function or method, and JAX's."""
    ours, theirs = (
        {node.name: node for node in ast.parse((package / file).read_text()).body if hasattr(node, "name")}
        for package in (TORCH, JAX)
    )
    for name, mine in ours.items():
        other = theirs.get(name)
        if name in JAX_CLASSES:
            continue
        if isinstance(mine, ast.ClassDef):
            for method, body in methods(mine).items():
                yield f"{name}.{method}", body, methods(theirs[name])[method]
        elif isinstance(mine, ast.FunctionDef) and isinstance(other, ast.FunctionDef):
            yield name, mine, other


def test_the_files_are_the_same_but_for_what_pytorch_brings_along():
    ours = (path.relative_to(JAX) for path in JAX.rglob("*.py"))
    assert sorted(str(path) for path in ours if not JAX_ROOMS & set(path.parts) and str(path) not in JAX_FILES) == FILES


@pytest.mark.parametrize("file", FILES)
def test_classes_have_the_same_names_arguments_defaults_and_attributes(file: str):
    ours, theirs = (definitions(package / file, ast.ClassDef) for package in (TORCH, JAX))
    assert list(ours) == list(theirs)
    for name in ours:
        in_torch, in_jax = methods(ours[name]), methods(theirs[name])
        assert list(in_torch) == list(in_jax), name
        for method in in_torch:
            assert arguments(in_torch[method]) == arguments(in_jax[method]), f"{name}.{method}"
            assert attributes(in_torch[method]) == attributes(in_jax[method]), f"{name}.{method}"


@pytest.mark.parametrize("file", FILES)
def test_functions_have_the_same_names_and_arguments(file: str):
    ours, theirs = functions(file)
    assert list(ours) == list(theirs)
    for name, function in ours.items():
        other = [argument for argument in arguments(theirs[name]) if argument[0] != "key"]
        assert [argument for argument in arguments(function) if argument[0] != "dtype"] == other, name


@pytest.mark.parametrize("file", MODELS)
def test_bodies_hold_the_same_calls_in_the_same_order(file: str):
    different = DIFFERENT.get(file, set())
    for name, mine, other in bodies(file):
        assert (calls(mine) == calls(other)) == (name not in different), f"{name}: {calls(mine)}, {calls(other)}"


def test_bodies_outside_a_room_of_xlas_are_all_compared():
    """Functions of PyTorch's files that have no body in the JAX file: those that a room has in XLA's form."""
    seen = {f"{file}:{name}" for file in MODELS for name, *_ in bodies(file)}
    left = {f"{file}:{name}" for file in MODELS for name in functions(file)[0]} - seen
    assert left == {"layers/residual.py:add", "layers/residual.py:sum_projections", "layers/qkv.py:unpacked"}
    assert {"vit/block.py:Block.forward", "layers/attention.py:attend", "layers/attention.py:_scalar"} <= seen


PLANTED: dict[str, tuple[str, Callable[[str], str]]] = {
    "another function": ("layers/mlp.py", lambda code: code.replace("self.act(self.fc1(x))", "self.act(self.fc2(x))")),
    "another order": (
        "vit/block.py",
        lambda code: code.replace("self.norm1(self.attn(x, rngs=rngs))", "self.attn(self.norm1(x), rngs=rngs)"),
    ),
    "another operator": ("layers/layer_scale.py", lambda code: code.replace(") * self.gamma", ") + self.gamma")),
    "a call too many": ("layers/attention.py", lambda code: code.replace("q * scale", "jnp.asarray(q) * scale")),
    "a call too few": ("vit/vision_transformer.py", lambda code: code.replace("self.pos_drop(x, rngs=rngs)", "x")),
    "a private method": ("layers/patch_embed.py", lambda code: code.replace("tuple(images.shape)", "images.shape")),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_difference_is_found(fault: str, tmp_path, monkeypatch):
    file, plant = PLANTED[fault]
    code = (JAX / file).read_text()
    assert plant(code) != code
    changed = tmp_path / file
    changed.parent.mkdir(parents=True)
    changed.write_text(plant(code))
    monkeypatch.setitem(globals(), "JAX", tmp_path)
    with pytest.raises(AssertionError):
        test_bodies_hold_the_same_calls_in_the_same_order(file)


def test_both_packages_export_the_same_names():
    torch_names = next(
        ast.literal_eval(node.value)
        for node in ast.parse((TORCH / "__init__.py").read_text()).body
        if isinstance(node, ast.Assign)
    )
    stub = ast.parse((JAX / "__init__.pyi").read_text())
    jax_names = {alias.name for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert set(torch_names) == jax_names - {"Init", "attend_cudnn", "attend_flash", "get_params", "set_params"}
