"""Checkpoints of a run in its work directory: reading them. In vit_jax only this module and its writer use orbax.

``checkpoints/STEP/`` holds ``params``, the tree that :mod:`conversion` reads; ``ema``, the same tree of the moving
average; ``rest``, step and optimizer state; ``record``, what the weights mean; ``metrics``, an evaluation. Orbax writes
to a temporary folder and renames it, so a folder named by its step is complete.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp

from conversion.containers.checksums import check_checksums
from vit_jax.training.devices.processes import gather_messages, raise_on_all
from vit_jax.training.run.keeping import METRICS, PARTS, RECORD, saved_steps
from vit_jax.training.run.mirror import Mirror
from vit_jax.training.run.state_tree import Outline, abstract_parts, outline_of_parts, whole
from vit_jax.training.run.stopping import noticing_signals
from vit_jax.training.step.update import TrainState
from vit_spec import VitportError

FOLDER = "checkpoints"
_Read = TypeVar("_Read")


@dataclass(frozen=True)
class Newest:
    """What :meth:`Checkpoints.newest` finds."""

    state: TrainState | None
    """``None`` where there is no checkpoint."""
    record: Mapping[str, Any]
    unread: Mapping[int, str]
    """Newer checkpoints that could not be read: step → a sentence that says why."""


class CheckpointReader:
    """Reads the checkpoints of one work directory. Each process reads by itself.

    A collective read would leave the others waiting for a process that fails, or meet them at another step.
    """

    def __init__(self, workdir: Path, mirror: Mirror | None = None) -> None:
        self.folder = (workdir / FOLDER).absolute()
        self._mirror = mirror
        self.name = str(self.folder.parent) if mirror is None else mirror.objects.address
        """Of the work directory."""
        silence_orbax()
        index = jax.process_index()
        alone = ocp.options.MultiprocessingOptions(primary_host=index, active_processes={index})
        self._reader = ocp.Checkpointer(
            ocp.CompositeCheckpointHandler(**handlers(alone)), multiprocessing_options=alone
        )

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
                f"None of the {len(unread)} checkpoints in {self.name} can be read; the newest: "
                f"{next(iter(unread.values()))}. Remove them to start the run again."
            )
        return Newest(None, {}, unread)

    def set_aside(self, step: int) -> None:
        """Renames a checkpoint that cannot be read to ``unread-STEP``; it is kept, as a single process may have failed.

        A collective: all processes must call it.

        Raises:
            VitportError: if it cannot be renamed.
        """
        raise_on_all(partial(self._rename, self.folder / str(step)))

    def close(self) -> None:
        self._reader.close()

    def _about(self, step: int) -> tuple[dict[str, Any], Outline]:
        """The record of a checkpoint, and the outline of its state as it was saved.

        Checksums are verified first, so that a damaged checkpoint is not taken for another run's.
        """
        if self._mirror is not None:
            self._mirror.fetch(step)
        check_checksums(self.folder / str(step))
        found: Any = self._reader.metadata(self.folder / str(step)).item_metadata
        trees = {name: found[name].tree for name in PARTS if name != RECORD and found.get(name)}
        return self._read(step, record=ocp.args.JsonRestore())[RECORD], outline_of_parts(trees)

    def _read(self, step: int, **wanted: Any) -> Any:
        return self._reader.restore(self.folder / str(step), args=ocp.args.Composite(**wanted))

    def _restore(self, step: int, like: TrainState) -> TrainState:
        wanted = {name: ocp.args.StandardRestore(tree) for name, tree in abstract_parts(like).items()}
        return whole(self._read(step, **wanted), like)

    def _newest_except(self, unread: Mapping[int, str]) -> int | None:
        """The newest of the steps that any process sees."""
        own = max(set(saved_steps(self.folder)) - unread.keys(), default=-1)
        newest = max(map(int, gather_messages(str(own))))
        return None if newest < 0 else newest

    def _rename(self, folder: Path) -> None:
        if self._mirror is not None:
            self._mirror.set_aside(int(folder.name), f"unread-{folder.name}")
        elif jax.process_index() == 0 and folder.exists():
            names = (f"unread-{folder.name}{suffix}" for suffix in ("", *(f"-{at}" for at in range(2, 10**6))))
            aside = next(path for name in names if not (path := folder.with_name(name)).exists())
            try:
                folder.rename(aside)
            except OSError as error:
                raise VitportError(
                    f"{folder} can be neither read nor renamed ({error.strerror or error}): remove it."
                ) from error


def handlers(processes: ocp.options.MultiprocessingOptions, *, shared: bool = True) -> dict[str, Any]:
    """One for each part, so that the record can be read before the other parts are known.

    Args:
        shared: whether all processes write into one folder; else each array's parts are files of their own, which make
            the checkpoint when they are put together.
    """
    state = ocp.StandardCheckpointHandler if shared else partial(ocp.StandardCheckpointHandler, use_ocdbt=False)
    kinds: dict[str, Any] = dict.fromkeys(PARTS, state)
    kinds |= {RECORD: ocp.JsonCheckpointHandler, METRICS: partial(ocp.JsonCheckpointHandler, METRICS)}
    return {name: kind(multiprocessing_options=processes) for name, kind in kinds.items()}


def silence_orbax() -> None:
    """It logs every step of its work. When a write fails, it and the event loops of its threads log tracebacks besides
    the error that they raise."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _read_by_all(read: Callable[[], _Read]) -> tuple[_Read | None, str]:
    """What ``read`` returns if it succeeds in every process; else ``None`` and the reason of the first that failed."""
    found, reason = None, ""
    with noticing_signals() as came:
        try:
            found = read()
        except Exception as error:  # damaged files raise anything
            if came():  # the files are not to blame
                raise KeyboardInterrupt from error
            reason = " ".join(str(error).split())[:200] or type(error).__name__
    reasons = gather_messages(reason)
    for index, failed in enumerate(reasons):
        if failed:
            return None, f"({failed})" if len(reasons) == 1 else f"by process {index} ({failed})"
    return found, ""
