"""Checkpoints of a run in its work directory. In vit_jax only this module uses orbax.

``checkpoints/STEP/`` holds ``params``, the tree that :mod:`conversion` reads; ``ema``, the same tree of the moving
average; ``rest``, step and optimizer state; ``record``, what the weights mean. Orbax writes to a temporary folder and
renames it, so a folder named by its step is complete.
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
from vit_jax.training.devices.processes import gather_messages, raise_on_all
from vit_jax.training.recipe.config import CheckpointOptions
from vit_jax.training.step.update import TrainState
from vit_spec import VitportError

FOLDER = "checkpoints"
_PARTS = ("params", "ema", "rest", "record")
Outline = dict[str, tuple[tuple[int, ...], str]]
"""Name → shape and dtype, for every array of a state."""
_Read = TypeVar("_Read")


@dataclass(frozen=True)
class Newest:
    """What :meth:`Checkpoints.newest` finds."""

    state: TrainState | None
    """``None`` where there is no checkpoint."""
    record: Mapping[str, Any]
    unread: Mapping[int, str]
    """Newer checkpoints that could not be read: step → a sentence that says why."""


class Checkpoints:
    """The checkpoints of one work directory.

    Args:
        workdir: created if it does not exist.
        keep: how many checkpoints to keep.

    Raises:
        VitportError: if the directory cannot be written.
    """

    def __init__(self, workdir: Path, keep: CheckpointOptions) -> None:
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
            async_options=ocp.options.AsyncOptions(post_finalization_callback=self._write_checksums),
        )
        # Orbax logs every step of its work. When a write fails, it and the event loops of its threads log tracebacks
        # besides the error that they raise.
        for name in ("absl", "asyncio"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self._hook = sys.unraisablehook
        sys.unraisablehook = self._unraisable
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._manager = ocp.CheckpointManager(self.folder, options=options)
        except OSError as error:
            raise VitportError(
                f"{workdir} cannot be written ({error.strerror or error}): choose another work directory."
            ) from error
        # Each process reads by itself: the manager's own restore is collective, so a process that fails would leave the
        # others waiting, or meet them at another step.
        index = jax.process_index()
        alone = ocp.options.MultiprocessingOptions(primary_host=index, active_processes={index})
        self._reader = ocp.Checkpointer(
            ocp.CompositeCheckpointHandler(**_handlers(alone)), multiprocessing_options=alone
        )

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, in order."""
        return sorted(self._manager.all_steps())

    def save(self, state: TrainState, record: Mapping[str, Any], metrics: Mapping[str, float] | None) -> None:
        """Starts to write in the background; the caller may change the state at once.

        Args:
            record: what the weights mean, as JSON values.
            metrics: an evaluation of this state; the best checkpoints are those of the highest ``accuracy``.

        Raises:
            VitportError: if an earlier checkpoint could not be written.
        """
        step = int(np.asarray(state.step.addressable_shards[0].data))
        if step in self._manager.all_steps():
            return
        parts = {name: ocp.args.StandardSave(tree) for name, tree in _parts(state).items()}
        try:
            self._manager.wait_until_finished()  # one write at a time
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
        """Waits until everything is on disk.

        Raises:
            VitportError: if a checkpoint could not be written.
        """
        try:
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
        except (OSError, ValueError) as error:
            raise self._unwritten(error) from error

    def _about(self, step: int) -> tuple[dict[str, Any], Outline]:
        """The record of a checkpoint, and the outline of its state as it was saved.

        Checksums are verified first, so that a damaged checkpoint is not taken for another run's.
        """
        check_checksums(self.folder / str(step))
        found: Any = self._reader.metadata(self.folder / str(step)).item_metadata
        trees = {name: found[name].tree for name in _PARTS if name != "record" and found.get(name)}
        return self._read(step, record=ocp.args.JsonRestore())["record"], _outline(trees)

    def _read(self, step: int, **parts: Any) -> Any:
        return self._reader.restore(self.folder / str(step), args=ocp.args.Composite(**parts))

    def _write_checksums(self) -> None:
        if jax.process_index() == 0:
            # Orbax has written everything, and renames the folder next.
            (folder,) = (path for path in self.folder.iterdir() if path.name.split(".")[0] == str(self._writing))
            write_checksums(folder, [part for part in _PARTS if (folder / part).is_dir()])

    def _restore(self, step: int, like: TrainState) -> TrainState:
        parts = {name: ocp.args.StandardRestore(tree) for name, tree in _parts(jax.tree.map(_abstract, like)).items()}
        return _whole(self._read(step, **parts), like)

    def newest(self, like: TrainState, check: Callable[[Mapping[str, Any], Outline], None]) -> Newest:
        """The newest state that every process can read, the same in all processes.

        Checkpoints that cannot be read stay in place; :meth:`set_aside` renames them, so that their steps can be saved
        again.

        Args:
            like: the state's shapes, with shardings on any mesh; the saved mesh does not matter.
            check: called with the record and the outline of a state before it is read; raises if it is another run's.

        Raises:
            VitportError: if there are checkpoints and none can be read, or ``check`` raises it.
        """
        unread: dict[int, str] = {}
        while (step := self._newest_except(unread)) is not None:
            about, reason = _read_by_all(partial(self._about, step))
            if about is not None:
                raise_on_all(partial(check, *about))
                state, reason = _read_by_all(partial(self._restore, step, like))
                if state is not None:
                    return Newest(state, about[0], unread)
            unread[step] = f"checkpoint {step} cannot be read {reason}"
        if unread:
            raise VitportError(
                f"None of the {len(unread)} checkpoints in {self.folder} can be read; the newest: "
                f"{next(iter(unread.values()))}. Remove them to start the run again."
            )
        return Newest(None, {}, unread)

    def _newest_except(self, unread: Mapping[int, str]) -> int | None:
        """The newest of the steps that any process sees."""
        own = max(set(self.steps()) - unread.keys(), default=-1)
        newest = max(map(int, gather_messages(str(own))))
        return None if newest < 0 else newest

    def set_aside(self, step: int) -> None:
        """Renames a checkpoint that cannot be read to ``unread-STEP``; it is kept, as a single process may have failed.

        A collective: all processes must call it.

        Raises:
            VitportError: if it cannot be renamed.
        """
        raise_on_all(partial(self._rename, self.folder / str(step)))
        self._manager.reload()

    def _rename(self, folder: Path) -> None:
        if jax.process_index() == 0 and folder.exists():
            aside = folder.with_name(f"unread-{folder.name}")
            try:
                shutil.rmtree(aside, ignore_errors=True)
                folder.rename(aside)
            except OSError as error:
                raise VitportError(
                    f"{folder} can be neither read nor renamed ({error.strerror or error}): remove it."
                ) from error

    def _unwritten(self, error: Exception) -> VitportError:
        number = re.search(r"os_error_code='(\d+)'", str(error))
        reason = os.strerror(int(number[1])) if number else " ".join(str(error).split())[:300]
        return VitportError(
            f"A checkpoint could not be written to {self.folder} ({reason}): free disk space and run again."
        )

    def _unraisable(self, unraisable: sys.UnraisableHookArgs) -> None:
        """Silences TensorStore's threads, which call an event loop that ended with the first failed write."""
        if "Event loop is closed" not in str(unraisable.exc_value):
            self._hook(unraisable)

    def close(self) -> None:
        self._reader.close()
        self._manager.close()
        sys.unraisablehook = self._hook


def _handlers(processes: ocp.options.MultiprocessingOptions) -> dict[str, Any]:
    """One for each part, so that the record can be read before the other parts are known."""
    kinds: dict[str, Any] = dict.fromkeys(_PARTS, ocp.StandardCheckpointHandler) | {"record": ocp.JsonCheckpointHandler}
    return {name: kind(multiprocessing_options=processes) for name, kind in kinds.items()}


def _read_by_all(read: Callable[[], _Read]) -> tuple[_Read | None, str]:
    """What ``read`` returns if it succeeds in every process; else ``None`` and the reason of the first that failed."""
    found, reason = None, ""
    try:
        found = read()
    except Exception as error:  # damaged files raise anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
    reasons = gather_messages(reason)
    for index, failed in enumerate(reasons):
        if failed:
            return None, f"({failed})" if len(reasons) == 1 else f"by process {index} ({failed})"
    return found, ""


def outline(state: TrainState) -> Outline:
    """The outline of a state, or of its shapes."""
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
    # In the order of the run's parameters, which orbax may change.
    ordered = {path: params[path] for path in like.params}
    return TrainState(parts["rest"]["step"], ordered, optimizer, ema and {path: ema[path] for path in like.params})


def _name(path: tuple[Any, ...]) -> str:
    return ".".join(str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", key)))) for key in path).replace(
        "/", "."
    )


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
