"""Checkpoints of a run in its work directory. In vit_jax this module alone knows orbax.

``checkpoints/STEP/`` holds ``params``, the tree that :mod:`conversion` reads; ``ema``, the same of the moving average;
``rest``, step and optimizer; ``record``, what the weights mean. Orbax writes aside and renames, so what has its number
for a name is whole.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from conversion.containers.checksums import check_checksums, write_checksums
from conversion.tensors.flax_tree import flatten, nest
from vit_jax.training.devices.processes import together, told_by_all
from vit_jax.training.recipe.config import Keeping
from vit_jax.training.step.update import TrainState
from vit_spec import VitportError

FOLDER = "checkpoints"
_PARTS = ("params", "ema", "rest", "record")
Outline = dict[str, tuple[tuple[int, ...], str]]
"""Name → shape and dtype of every array of a state."""
_Read = TypeVar("_Read")


@dataclass(frozen=True)
class Newest:
    """What :meth:`Checkpoints.newest` finds."""

    state: TrainState | None
    """``None`` where there is no checkpoint."""
    record: Mapping[str, Any]
    unread: Mapping[int, str]
    """Newer steps, and what is to be said of each."""


class Checkpoints:
    """The checkpoints of one work directory.

    Args:
        workdir: is made if it is not there.
        keep: how many of them stay.

    Raises:
        VitportError: if the directory cannot be written.
    """

    def __init__(self, workdir: Path, keep: Keeping) -> None:
        self.folder = (workdir / FOLDER).absolute()
        self._writing: int | None = None
        policies: list[Any] = [checkpoint_managers.LatestN(keep.last)]
        if keep.best:
            best = checkpoint_managers.BestN(
                get_metric_fn=lambda metrics: metrics["accuracy"], n=keep.best, keep_checkpoints_without_metrics=False
            )
            policies.append(best)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
            cleanup_tmp_directories=True,  # what a killed process left unfinished
            enable_async_checkpointing=True,
            async_options=ocp.options.AsyncOptions(post_finalization_callback=self._sum_up),
        )
        # Orbax tells of every step of its work, and it and the event loops of its threads tell of a write that fails by
        # many traces besides the error that is raised.
        for name in ("absl", "asyncio"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self._hook = sys.unraisablehook
        sys.unraisablehook = self._unraisable
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._manager = ocp.CheckpointManager(self.folder, options=options)
        except OSError as error:
            raise VitportError(f"{workdir} cannot be written ({error.strerror or error}): choose another.") from error
        # Each process reads by itself: the manager's own restore waits for all, so that one which fails would leave the
        # others waiting, or meet them at another step.
        index = jax.process_index()
        alone = ocp.options.MultiprocessingOptions(primary_host=index, active_processes={index})
        self._reader = ocp.Checkpointer(
            ocp.CompositeCheckpointHandler(**_handlers(alone)), multiprocessing_options=alone
        )

    def steps(self) -> list[int]:
        """Steps of which there is a checkpoint, in order."""
        return sorted(self._manager.all_steps())

    def save(self, state: TrainState, record: Mapping[str, Any], metrics: Mapping[str, float] | None) -> None:
        """Begins to write; what follows may change the state.

        Args:
            record: what the weights mean, JSON values.
            metrics: of an evaluation of this state, of which ``accuracy`` says which checkpoints are the best.

        Raises:
            VitportError: if an earlier one could not be written.
        """
        step = int(np.asarray(state.step.addressable_shards[0].data))
        if step in self._manager.all_steps():
            return
        parts = {name: ocp.args.StandardSave(tree) for name, tree in _parts(state).items()}
        try:
            self._manager.wait_until_finished()  # so that one at a time is written
            self._writing = step
            self._manager.save(
                step,
                args=ocp.args.Composite(record=ocp.args.JsonSave(dict(record)), **parts),
                metrics=None if metrics is None else dict(metrics),
                force=True,
            )
        except (OSError, ValueError) as error:
            raise self._unwritten(error) from error

    def wait(self) -> None:
        """Until everything is on disk.

        Raises:
            VitportError: if something could not be written.
        """
        try:
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
        except (OSError, ValueError) as error:
            raise self._unwritten(error) from error

    def _about(self, step: int) -> tuple[dict[str, Any], Outline]:
        """What was saved beside a state, and the state's outline, whatever code made it.

        Every file is compared with its checksum first: a damaged one must not pass for another run's.
        """
        check_checksums(self.folder / str(step))
        found: Any = self._reader.metadata(self.folder / str(step)).item_metadata
        trees = {name: found[name].tree for name in _PARTS if name != "record" and found.get(name)}
        return self._read(step, record=ocp.args.JsonRestore())["record"], _outline(trees)

    def _read(self, step: int, **parts: Any) -> Any:
        return self._reader.restore(self.folder / str(step), args=ocp.args.Composite(**parts))

    def _sum_up(self) -> None:
        if jax.process_index() == 0:
            # Orbax has written everything, and has yet to give the folder its name.
            (folder,) = (path for path in self.folder.iterdir() if path.name.split(".")[0] == str(self._writing))
            write_checksums(folder, [part for part in _PARTS if (folder / part).is_dir()])

    def _restore(self, step: int, like: TrainState) -> TrainState:
        parts = {name: ocp.args.StandardRestore(tree) for name, tree in _parts(jax.tree.map(_abstract, like)).items()}
        return _whole(self._read(step, **parts), like)

    def newest(self, like: TrainState, check: Callable[[Mapping[str, Any], Outline], None]) -> Newest:
        """The newest state that every process can read, the same for all of them.

        What cannot be read stays where it is; :meth:`set_aside` makes room for it to be written again.

        Args:
            like: a state's shapes with shardings: of any mesh, whatever the saved one was.
            check: is given the record and the outline of a state before it is read, to raise what is to be told.

        Raises:
            VitportError: if there are checkpoints and none can be read; what ``check`` raises.
        """
        unread: dict[int, str] = {}
        while (step := self._newest_besides(unread)) is not None:
            told, trouble = _tried(partial(self._about, step))
            if told is not None:
                together(partial(check, *told))
                state, trouble = _tried(partial(self._restore, step, like))
                if state is not None:
                    return Newest(state, told[0], unread)
            unread[step] = f"checkpoint {step} cannot be read {trouble}"
        if unread:
            raise VitportError(
                f"None of the {len(unread)} checkpoints in {self.folder} can be read; the newest: "
                f"{next(iter(unread.values()))}. Take them away to begin anew."
            )
        return Newest(None, {}, unread)

    def _newest_besides(self, unread: Mapping[int, str]) -> int | None:
        """Of the steps that any process sees."""
        own = max(set(self.steps()) - unread.keys(), default=-1)
        newest = max(map(int, told_by_all(str(own))))
        return None if newest < 0 else newest

    def set_aside(self, step: int) -> None:
        """Renames one that cannot be read to ``unread-STEP``, for it may be one process alone that could not.

        All processes do so together.

        Raises:
            VitportError: if it cannot be renamed.
        """
        together(partial(self._rename, self.folder / str(step)))
        self._manager.reload()

    def _rename(self, folder: Path) -> None:
        if jax.process_index() == 0 and folder.exists():
            aside = folder.with_name(f"unread-{folder.name}")
            try:
                shutil.rmtree(aside, ignore_errors=True)
                folder.rename(aside)
            except OSError as error:
                raise VitportError(
                    f"{folder} cannot be read, nor renamed ({error.strerror or error}): take it away."
                ) from error

    def _unwritten(self, error: Exception) -> VitportError:
        number = re.search(r"os_error_code='(\d+)'", str(error))
        told = os.strerror(int(number[1])) if number else " ".join(str(error).split())[:300]
        return VitportError(
            f"A checkpoint could not be written to {self.folder} ({told}): free the disk and run again."
        )

    def _unraisable(self, unraisable: sys.UnraisableHookArgs) -> None:
        """What TensorStore's threads say to an event loop that ended with the first write that failed."""
        if "Event loop is closed" not in str(unraisable.exc_value):
            self._hook(unraisable)

    def close(self) -> None:
        self._reader.close()
        self._manager.close()
        sys.unraisablehook = self._hook


def _handlers(processes: ocp.options.MultiprocessingOptions) -> dict[str, Any]:
    """Named beforehand, so that a record can be read before it is known what else there is."""
    kinds: dict[str, Any] = dict.fromkeys(_PARTS, ocp.StandardCheckpointHandler) | {"record": ocp.JsonCheckpointHandler}
    return {name: kind(multiprocessing_options=processes) for name, kind in kinds.items()}


def _tried(read: Callable[[], _Read]) -> tuple[_Read | None, str]:
    """What every process could read, or ``None`` and the trouble of the first that could not."""
    found, trouble = None, ""
    try:
        found = read()
    except Exception as error:  # damaged files fail in any way at all
        trouble = " ".join(str(error).split())[:200] or type(error).__name__
    troubles = told_by_all(trouble)
    for index, told in enumerate(troubles):
        if told:
            return None, f"({told})" if len(troubles) == 1 else f"by process {index} ({told})"
    return found, ""


def outline(state: TrainState) -> Outline:
    """Of a state, or of its shapes."""
    return _outline(_parts(state))


def _outline(parts: Mapping[str, Any]) -> Outline:
    leaves, _ = jax.tree_util.tree_flatten_with_path(parts)
    return {"/".join(str(key.key) for key in path): (tuple(leaf.shape), str(leaf.dtype)) for path, leaf in leaves}


def _parts(state: TrainState) -> dict[str, Any]:
    optimizer, _ = jax.tree_util.tree_flatten_with_path(state.opt_state)
    rest = {"step": state.step, "optimizer": {_name(path): leaf for path, leaf in optimizer}}
    ema = {} if state.ema is None else {"ema": nest(state.ema)}
    return {"params": nest(state.params), "rest": rest, **ema}


def _whole(parts: Any, like: TrainState) -> TrainState:
    leaves, tree = jax.tree_util.tree_flatten_with_path(like.opt_state)
    optimizer = jax.tree.unflatten(tree, [parts["rest"]["optimizer"][_name(path)] for path, _ in leaves])
    ema = None if like.ema is None else flatten(parts["ema"])
    params = flatten(parts["params"])
    # The order of the parameters is that of the run, whatever orbax makes of it.
    ordered = {path: params[path] for path in like.params}
    return TrainState(parts["rest"]["step"], ordered, optimizer, ema and {path: ema[path] for path in like.params})


def _name(path: tuple[Any, ...]) -> str:
    return ".".join(str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", key)))) for key in path).replace(
        "/", "."
    )


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
