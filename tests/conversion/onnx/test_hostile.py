"""Graphs that lie, loop or swell cost one sentence, little time and little memory."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import conversion
from conversion.containers.onnx import read_model
from tests.conversion.onnx.test_styles import CONFIG, PARAMS
from tests.conversion.onnx.write_graph import vit_graph
from vit_spec import VitportError

SECONDS = 10
"""Of CPU time."""
IMAGE = [1, 3, 8, 12]


def model(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray] | None = None, **more) -> onnx.ModelProto:
    """A graph from ``image`` to ``y``."""
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("image", TensorProto.FLOAT, IMAGE)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.array(array), name) for name, array in (constants or {}).items()],
    )  # fmt: skip
    return helper.make_model(graph, producer_name="test", **more)


def whole() -> onnx.ModelProto:
    return vit_graph(PARAMS, CONFIG)


def circle() -> onnx.ModelProto:
    """A Cast that reads itself."""
    return model(
        [helper.make_node("Cast", ["l"], ["l"], to=1), helper.make_node("Concat", ["image", "l"], ["y"], axis=1)]
    )


def circle_of_two() -> onnx.ModelProto:
    return model([helper.make_node("Add", ["image", "b"], ["a"]), helper.make_node("Relu", ["a"], ["b"]),
                  helper.make_node("Relu", ["b"], ["y"])])  # fmt: skip


def computed_twice() -> onnx.ModelProto:
    return model([helper.make_node("Relu", ["image"], ["a"]), helper.make_node("Exp", ["image"], ["a"]),
                  helper.make_node("Relu", ["a"], ["y"])])  # fmt: skip


def stored_twice() -> onnx.ModelProto:
    made = whole()
    made.graph.initializer.append(made.graph.initializer[0])
    return made


def segments() -> onnx.ModelProto:
    made = whole()
    made.graph.initializer[0].segment.begin = 0
    return made


def sparse() -> onnx.ModelProto:
    made = whole()
    made.graph.sparse_initializer.add().dims.extend([1 << 40])
    return made


def lying_shape() -> onnx.ModelProto:
    made = whole()
    made.graph.initializer[0].dims[0] = 1 << 40
    return made


def negative_shape() -> onnx.ModelProto:
    made = whole()
    made.graph.initializer[0].dims[0] = -1
    return made


def text() -> onnx.ModelProto:
    made = whole()
    made.graph.initializer[0].data_type = TensorProto.STRING
    return made


def no_type() -> onnx.ModelProto:
    made = whole()
    made.graph.initializer[0].data_type = 1000
    return made


def swollen() -> onnx.ModelProto:
    """One number expanded to 2^40."""
    return model([helper.make_node("Expand", ["one", "shape"], ["e"]), helper.make_node("Add", ["image", "e"], ["y"])],
                 {"one": np.float32([1]), "shape": np.int64([1 << 20, 1 << 20])})  # fmt: skip


def swollen_image() -> onnx.ModelProto:
    return model([helper.make_node("Tile", ["image", "n"], ["y"])], {"n": np.int64([1, 1, 1 << 14, 1 << 14])})


def doubling() -> onnx.ModelProto:
    """Forty concatenations of a value with itself."""
    names = ["image", *(f"v{at}" for at in range(39)), "y"]
    return model([helper.make_node("Concat", [a, a], [b], axis=0) for a, b in pairwise(names)])


def filled() -> onnx.ModelProto:
    return model([helper.make_node("ConstantOfShape", ["n"], ["c"]), helper.make_node("Add", ["image", "c"], ["y"])],
                 {"n": np.int64([1 << 50])})  # fmt: skip


def outer() -> onnx.ModelProto:
    """(2^20, 1) + (1, 2^20)."""
    n = np.zeros(1 << 20, np.float32)
    return model([helper.make_node("Add", ["a", "b"], ["c"]), helper.make_node("Add", ["image", "c"], ["y"])],
                 {"a": n[:, None], "b": n[None]})  # fmt: skip


def deep() -> onnx.ModelProto:
    """A chain of a hundred thousand nodes."""
    names = ["image", *(f"v{at}" for at in range(99_999)), "y"]
    return model([helper.make_node("Relu", [a], [b]) for a, b in pairwise(names)])


def deep_enough() -> onnx.ModelProto:
    """Forty thousand additions of what was computed before: no branch of it is a block's."""
    names = ["image", *(f"v{at}" for at in range(39_999)), "y"]
    return model([helper.make_node("Add", [a, "image"], [b]) for a, b in pairwise(names)])


def wide() -> onnx.ModelProto:
    """A hundred thousand nodes side by side."""
    names = [f"v{at}" for at in range(100_000)]
    nodes = [helper.make_node("Relu", ["image"], [name]) for name in names]
    return model([*nodes, helper.make_node("Sum", names, ["y"])])


def recursive_function() -> onnx.ModelProto:
    own = helper.make_function("f", "F", ["x"], ["z"], [helper.make_node("F", ["x"], ["z"], domain="f")],
                               [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)])  # fmt: skip
    return model([helper.make_node("F", ["image"], ["y"], domain="f")], functions=[own],
                 opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("f", 1)])  # fmt: skip


def exponential_functions() -> onnx.ModelProto:
    """Each calls the one before ten times."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    made = [helper.make_function("f", "F0", ["x"], ["z9"], [helper.make_node("Relu", ["x"], ["z9"])], opsets)]
    for at in range(1, 12):
        names = ["x", *(f"z{it}" for it in range(10))]
        nodes = [helper.make_node(f"F{at - 1}", [a], [b], domain="f") for a, b in pairwise(names)]
        made.append(helper.make_function("f", f"F{at}", ["x"], ["z9"], nodes, opsets))
    return model([helper.make_node("F11", ["image"], ["y"], domain="f")], functions=made, opset_imports=opsets)


def branches() -> onnx.ModelProto:
    """Branches within branches, thirty deep."""
    value = helper.make_tensor_value_info("o", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node("Relu", ["image"], ["o"])], "g", [], [value])
    for at in range(30):
        node = helper.make_node("If", ["true"], [f"o{at}"], then_branch=graph, else_branch=graph)
        graph = helper.make_graph([node], "g", [], [helper.make_tensor_value_info(f"o{at}", TensorProto.FLOAT, None)])
        if graph.ByteSize() > 1 << 20:
            break
    return model(
        [helper.make_node("If", ["true"], ["y"], then_branch=graph, else_branch=graph)], {"true": np.array(True)}
    )


def loop() -> onnx.ModelProto:
    """A Loop without end."""
    value = helper.make_tensor_value_info("s", TensorProto.FLOAT, None)
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["d"]), helper.make_node("Relu", ["r"], ["s"])], "body",
        [helper.make_tensor_value_info("i", TensorProto.INT64, []),
         helper.make_tensor_value_info("c", TensorProto.BOOL, []),
         helper.make_tensor_value_info("r", TensorProto.FLOAT, None)],
        [helper.make_tensor_value_info("d", TensorProto.BOOL, []), value],
    )  # fmt: skip
    return model([helper.make_node("Loop", ["", "true", "image"], ["y"], body=body)], {"true": np.array(True)})


def nothing() -> onnx.ModelProto:
    return model([])


def no_image() -> onnx.ModelProto:
    made = whole()
    del made.graph.input[:]
    return made


def endless_image() -> onnx.ModelProto:
    made = whole()
    made.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 1 << 40
    return made


def no_opset() -> onnx.ModelProto:
    made = whole()
    del made.opset_import[:]
    return made


def cast_to_nothing() -> onnx.ModelProto:
    return model([helper.make_node("Cast", ["image"], ["y"], to=99)])


def wrong_attribute() -> onnx.ModelProto:
    return model([helper.make_node("Transpose", ["image"], ["y"], perm="abc")])


def far_index() -> onnx.ModelProto:
    return model([helper.make_node("Gather", ["image", "at"], ["y"], axis=5)], {"at": np.int64([1 << 40])})


HOSTILE: list[Callable[[], onnx.ModelProto]] = [
    circle, circle_of_two, computed_twice, stored_twice, segments, sparse, lying_shape, negative_shape, text, no_type,
    swollen, swollen_image, doubling, filled, outer, deep, deep_enough, wide, recursive_function, exponential_functions,
    branches, loop, nothing, no_image, endless_image, cast_to_nothing, wrong_attribute, far_index,
]  # fmt: skip
"""What makes each file."""
MEASURE = """
import json, resource, sys, time, conversion, onnx
from tests.peak_memory import start, taken
from vit_spec import VitportError
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
results = []
for path in sys.argv[1:]:
    before, began, sentence = start(), time.process_time(), ""
    try:
        conversion.load(path)
    except VitportError as error:
        sentence = str(error)
    results.append((path, sentence, taken(before), time.process_time() - began))
json.dump(results, sys.stdout)
"""


def test_each_costs_a_sentence_and_little_else(tmp_path):
    """In a process of its own. Measured at most 3 s, and 250 MB for files of 10 MB, 60 MB for the small ones."""
    for make in HOSTILE:
        (tmp_path / f"{make.__name__}.onnx").write_bytes(make().SerializeToString())
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *(tmp_path / f"{make.__name__}.onnx" for make in HOSTILE)],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3],
    )  # fmt: skip
    results = json.loads(done.stdout)
    assert len(results) == len(HOSTILE)
    for path, sentence, grown, seconds in results:
        assert sentence.startswith(path), (path, sentence)
        assert "\n" not in sentence
        assert len(sentence) < 700, sentence
        assert seconds < SECONDS, (path, seconds)
        assert grown < (300 << 20) + 40 * Path(path).stat().st_size, (path, grown)


def external(folder: Path) -> Path:
    """The model with its weights beside it."""
    folder.mkdir(exist_ok=True)
    onnx.save(whole(), folder / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    return folder / "m.onnx"


@pytest.mark.parametrize(
    "location",
    [
        "../w.bin",
        "/etc/passwd",
        "a/../../w.bin",
        "..",
        "",
        ".",
        "link.bin",
        "folder",
        "w.bin\0",
        "..\\w.bin",
        "absent.bin",
    ],
)
def test_weights_elsewhere_are_not_read(location, tmp_path):
    path = external(tmp_path / "graph")
    (tmp_path / "w.bin").write_bytes((tmp_path / "graph" / "w.bin").read_bytes())
    (tmp_path / "graph" / "link.bin").symlink_to(tmp_path / "w.bin")
    (tmp_path / "graph" / "folder").mkdir()
    made = onnx.load(path, load_external_data=False)
    for tensor in made.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(made.SerializeToString())
    with pytest.raises(VitportError, match=r"m.onnx: Tensor .* lies in"):
        conversion.load(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("offset", "-4"),
        ("offset", "99999999999"),
        ("offset", "x"),
        ("length", "3"),
        ("length", "-1"),
        ("length", "1e9"),
    ],
)
def test_weights_at_wrong_places_of_their_file_are_refused(key, value, tmp_path):
    path = external(tmp_path / "graph")
    made = onnx.load(path, load_external_data=False)
    for tensor in made.graph.initializer[3:4]:
        kept = [entry for entry in tensor.external_data if entry.key != key]
        del tensor.external_data[:]
        tensor.external_data.extend(kept)
        tensor.external_data.add(key=key, value=value)
    path.write_bytes(made.SerializeToString())
    with pytest.raises(VitportError, match=r"m.onnx: Tensor .*(bytes at byte|not a number)"):
        conversion.load(path)


def test_weights_beside_the_graph_stay_on_disk_until_they_are_used(tmp_path):
    """The arrays are views of the mapped file; both files are hashed."""
    path = external(tmp_path / "graph")
    found, files = read_model(path)
    assert [file.name for file in files] == ["m.onnx", "w.bin"]
    for name, array in PARAMS.items():
        np.testing.assert_array_equal(found.model.tensors[name].read(), array, err_msg=name)


def test_any_order_of_bits_is_a_model_or_a_sentence(tmp_path):
    """Bits flipped all over the structure, which lies before the weights and after them."""
    content, rng = whole().SerializeToString(), np.random.default_rng(0)
    start = time.monotonic()
    for _ in range(60):
        bad = bytearray(content)
        at = int(rng.integers(0, 4000)) if rng.random() < 0.7 else int(rng.integers(0, len(bad)))
        bad[at] ^= 1 << int(rng.integers(0, 8))
        (tmp_path / "a.onnx").write_bytes(bad)
        try:
            conversion.load(tmp_path / "a.onnx")
        except VitportError as error:
            assert "\n" not in str(error)
    assert time.monotonic() - start < 60
