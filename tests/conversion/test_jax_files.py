"""Files of JAX as people make them by hand: pickles, copies for devices, names joined otherwise, folders of steps.

Oracle: the arrays that numpy, flax, jax and orbax were given.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.serialization
import flax.traverse_util
import jax
import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax.training import checkpoints

import conversion
from conversion.opening import Opening
from conversion.tensors.flax_tree import nest
from tests.conversion.canaries import ASYMMETRIC, assert_same_tensors, canary_params
from vit_parity.semantics import semantics_of_file
from vit_spec import VitportError

CONFIG = ASYMMETRIC.replace(image_size=12, depth=2, activation="gelu_tanh", representation_size=None)
PARAMS = canary_params(CONFIG)


@pytest.fixture(scope="module")
def flat(tmp_path_factory) -> dict[str, np.ndarray]:
    """The parameters under Google's names, joined by slashes."""
    path = tmp_path_factory.mktemp("google") / "w.npz"
    conversion.save(conversion.Checkpoint.of(CONFIG, PARAMS), path, format="google", activation="keep")
    return dict(np.load(path))


def _frozen(tree: dict[str, Any]) -> Any:
    return flax.core.freeze(jax.tree.map(jax.numpy.asarray, tree))


PICKLES: dict[str, Callable[[Any, Path], None]] = {
    "w.pkl": lambda tree, path: path.write_bytes(pickle.dumps(tree)) and None,
    "old.pickle": lambda tree, path: path.write_bytes(pickle.dumps(tree, protocol=2)) and None,
    "jax.pkl": lambda tree, path: path.write_bytes(pickle.dumps(_frozen(tree))) and None,
    "object.npz": lambda tree, path: np.savez(path, params=tree),  # pyright: ignore[reportArgumentType]
    "positional.npz": lambda tree, path: np.savez(path, tree),  # pyright: ignore[reportArgumentType]
    "tree.npy": lambda tree, path: np.save(path, tree),  # pyright: ignore[reportArgumentType]
}


@pytest.mark.parametrize("name", list(PICKLES))
def test_a_pickle_is_never_opened_and_the_way_out_that_is_told_works(name, flat, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    PICKLES[name]({"params": nest(flat), "step": np.array(3)}, tmp_path / name)
    with monkeypatch.context() as patched, pytest.raises(VitportError, match="could run code") as caught:
        patched.setattr(pickle, "load", None)
        conversion.load(tmp_path / name)
    remedy = re.search(r"numpy\.savez\(.*sep='/'\)\)", str(caught.value))
    assert remedy is not None
    eval(remedy[0], {"numpy": np, "flax": flax, "pickle": pickle, "open": open})
    assert_same_tensors(conversion.load(tmp_path / f"{Path(name).stem}_arrays.npz").params, PARAMS)


def test_a_pickle_of_torch_is_told_torchs_way(tmp_path) -> None:
    import torch

    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"a.weight": torch.ones(2, 2)}))
    with pytest.raises(VitportError, match=r"torch\.save\(model\.state_dict"):
        conversion.load(tmp_path / "w.pkl")


@pytest.mark.parametrize("name", ["w.pkl.gz", "w.npz.xz"])
def test_a_compressed_file_is_told_how_to_unpack(name, tmp_path) -> None:
    import gzip
    import lzma

    (tmp_path / name).write_bytes((gzip if name.endswith("gz") else lzma).compress(b"x" * 100))
    with pytest.raises(VitportError, match=r"compressed: unpack it with (gunzip|unxz)"):
        conversion.load(tmp_path / name)


JOINTS: dict[str, Callable[[tuple[str, ...]], str]] = {
    "dots": ".".join,
    "backslashes": "\\".join,
    "colons": ":".join,
    "bars": "|".join,
    "underscores": "__".join,
    "arrows": "->".join,
    "spaces": " ".join,
    "keystr": lambda parts: jax.tree_util.keystr(tuple(jax.tree_util.DictKey(part) for part in parts)),
    "keystr of a TrainState": lambda parts: ".params" + "".join(f"['{part}']" for part in parts),
    "tuples": str,
}


@pytest.mark.parametrize("joint", list(JOINTS))
@pytest.mark.parametrize("root", [(), ("params",)], ids=["bare", "params"])
def test_names_may_be_joined_in_other_ways(joint, root, flat, tmp_path) -> None:
    np.savez(tmp_path / "w.npz", **{JOINTS[joint]((*root, *name.split("/"))): array for name, array in flat.items()})
    checkpoint = conversion.load(tmp_path / "w.npz")
    assert checkpoint.provenance.format == "google"
    assert_same_tensors(checkpoint.params, PARAMS)


def test_names_of_pytorch_may_be_joined_by_slashes(tmp_path) -> None:
    np.savez(tmp_path / "w.npz", **{name.replace(".", "/"): array for name, array in PARAMS.items()})
    assert_same_tensors(conversion.load(tmp_path / "w.npz", model=CONFIG).params, PARAMS)


REPLICATED: dict[str, Callable[[dict[str, np.ndarray], Path], None]] = {
    "msgpack": lambda flat, path: path.write_bytes(flax.serialization.to_bytes(nest(flat))) and None,
    "npz": lambda flat, path: np.savez(path.open("wb"), **flat),  # pyright: ignore[reportArgumentType]
    "state": lambda flat, path: path.write_bytes(
        flax.serialization.to_bytes({"params": nest(flat), "step": np.array([3, 3, 3]), "rng": np.zeros((3, 2))})
    ) and None,
    "orbax": lambda flat, path: ocp.PyTreeCheckpointer().save(path, nest(flat)),
}  # fmt: skip


@pytest.mark.parametrize("packed", list(REPLICATED))
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_one_of_equal_copies_for_devices_is_read_if_asked_for(packed, dtype, flat, tmp_path) -> None:
    copies = {name: np.stack([array.astype(dtype)] * 3) for name, array in flat.items()}
    REPLICATED[packed](copies, tmp_path / "w")
    with pytest.raises(VitportError, match=r"first axis of 3, .* with --unreplicate"):
        conversion.load(tmp_path / "w")
    found = conversion.load(tmp_path / "w", unreplicate=True)
    assert_same_tensors(found.params, {name: array.astype(dtype) for name, array in PARAMS.items()})
    images = np.random.default_rng(0).standard_normal((1, 12, 12, CONFIG.in_channels))
    own = semantics_of_file(tmp_path / "w", found.config, opening=Opening(unreplicate=True)).run(images)
    conversion.save(found, tmp_path / "plain", format="google", activation="keep")
    assert (own["head"] == semantics_of_file(tmp_path / "plain", found.config).run(images)["head"]).all()


def test_copies_that_differ_are_refused(flat, tmp_path) -> None:
    copies = {name: np.stack([array] * 3) for name, array in flat.items()}
    copies["head/bias"][2] = np.nextafter(copies["head/bias"][2], np.inf, dtype=np.float32)
    np.savez(tmp_path / "w.npz", **copies)
    with pytest.raises(VitportError, match="copies of head/bias for different devices differ"):
        conversion.load(tmp_path / "w.npz", unreplicate=True)


def test_the_copy_of_a_single_device_needs_no_choice(flat, tmp_path) -> None:
    copies = jax.pmap(lambda x: x)({name: array[None] for name, array in flat.items()})
    np.savez(tmp_path / "w.npz", **{name: np.asarray(array) for name, array in copies.items()})
    assert_same_tensors(conversion.load(tmp_path / "w.npz").params, PARAMS)


def test_nothing_is_unreplicated_that_is_no_copy(flat, tmp_path) -> None:
    np.savez(tmp_path / "w.npz", **flat)
    with pytest.raises(VitportError, match="leave out --unreplicate"):
        conversion.load(tmp_path / "w.npz", unreplicate=True)


def _tree(flat: dict[str, np.ndarray], shift: float = 0) -> dict[str, Any]:
    return nest({name: array + np.float32(shift) for name, array in flat.items()})


def _manager(flat: dict[str, np.ndarray], path: Path) -> None:
    manager = ocp.CheckpointManager(path)
    for step in (1, 20, 100):
        tree = {"params": _tree(flat, step), "opt_state": {"mu": _tree(flat)}, "step": np.array(step)}
        manager.save(step, args=ocp.args.StandardSave(tree))
    manager.wait_until_finished()
    manager.close()


def _composite(flat: dict[str, np.ndarray], path: Path) -> None:
    manager = ocp.CheckpointManager(
        path, options=ocp.CheckpointManagerOptions(step_prefix="ckpt", step_format_fixed_length=8)
    )
    for step in (1, 20, 100):
        items = ocp.args.Composite(
            params=ocp.args.StandardSave(_tree(flat, step)),
            opt_state=ocp.args.StandardSave({"mu": _tree(flat)}),
            data=ocp.args.JsonSave({"seed": 1}),
        )
        manager.save(step, args=items)
    manager.wait_until_finished()
    manager.close()


def _flax(flat: dict[str, np.ndarray], path: Path) -> None:
    for step in (1, 20, 100):
        checkpoints.save_checkpoint(path, {"params": _tree(flat, step)}, step, keep=3, overwrite=True)


def _msgpack(flat: dict[str, np.ndarray], path: Path) -> None:
    path.mkdir()
    for step in (1, 20, 100):
        (path / f"checkpoint_{step}").write_bytes(flax.serialization.to_bytes({"params": _tree(flat, step)}))


@pytest.mark.parametrize("write", [_manager, _composite, _flax, _msgpack], ids=lambda write: write.__name__)
def test_folders_of_steps_give_the_last_step_or_the_one_that_is_named(write, flat, tmp_path) -> None:
    write(flat, tmp_path / "run")
    steps = {"1": 1, "100": 100, None: 100, "20": 20}
    for key, step in steps.items():
        found = conversion.load(tmp_path / "run", weights_key=key)
        assert_same_tensors(found.params, {name: array + np.float32(step) for name, array in PARAMS.items()})
        assert any(f"read step {step}" in note for note in found.provenance.notes)
    folder = next(child for child in (tmp_path / "run").iterdir() if re.fullmatch(r"(\w+_)?0*20", child.name))
    found = conversion.load(folder)
    assert_same_tensors(found.params, {name: array + np.float32(20) for name, array in PARAMS.items()})
    with pytest.raises(VitportError, match="no step 21: choose one of 1, 20, 100"):
        conversion.load(tmp_path / "run", weights_key="21")


def test_a_step_of_several_items_is_a_choice(flat, tmp_path) -> None:
    manager = ocp.CheckpointManager(tmp_path / "run")
    items = {"params": ocp.args.StandardSave(_tree(flat)), "ema": ocp.args.StandardSave(_tree(flat, 1))}
    manager.save(7, args=ocp.args.Composite(**items))
    manager.wait_until_finished()
    manager.close()
    with pytest.raises(VitportError, match=r"holds ema, params: choose one of them by weights_key"):
        conversion.load(tmp_path / "run")
    for key in ("ema", "7.ema", "7/ema"):
        found = conversion.load(tmp_path / "run", weights_key=key)
        assert_same_tensors(found.params, {name: array + np.float32(1) for name, array in PARAMS.items()})


def test_a_step_that_was_not_finished_is_none(flat, tmp_path) -> None:
    _manager(flat, tmp_path / "run")
    (tmp_path / "run" / "100").rename(tmp_path / "run" / "100.orbax-checkpoint-tmp")
    found = conversion.load(tmp_path / "run")
    assert_same_tensors(found.params, {name: array + np.float32(20) for name, array in PARAMS.items()})
