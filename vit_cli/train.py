"""``vitport train``: a run from a configuration, or from where its work directory left it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from vit_cli.terminal import print_table, say
from vit_spec import VitportError

if TYPE_CHECKING:
    from vit_jax.training.monitor import Line
    from vit_jax.training.run import Finished
    from vit_jax.training.setup import Setup

SHORT = {
    "--model": "--model.name",
    "--weights": "--model.weights",
    "--data": "--data.path",
    "--validation": "--data.validation",
}
"""What is given most often, by a shorter name."""


def train(*, workdir: Annotated[str, tyro.conf.arg(metavar="FOLDER")]) -> int:
    """Train a model in JAX, on one device or a pod of them; see `vitport train --help` for its many options.

    Args:
        workdir: Gets configuration, log and checkpoints; a run that is there goes on.
    """
    raise NotImplementedError(workdir)  # main() puts what train_from() makes in this place


def train_from(args: Sequence[str]) -> Callable[..., int]:
    """The command with the defaults that its arguments name: a preset, a file, or the work directory's own.

    Args:
        args: after the word ``train``.
    """
    from vit_jax.training.config import Processes, TrainConfig, read_config
    from vit_jax.training.presets import get_preset

    given = {name: _value(args, f"--{name}") for name in ("preset", "config", "workdir")}
    if given["preset"] and given["config"]:
        raise VitportError("--preset and --config both give defaults: give one, and change it by further options.")
    defaults = TrainConfig()
    if given["preset"]:
        defaults = get_preset(given["preset"]).config
    elif given["config"]:
        defaults = read_config(given["config"])
    elif given["workdir"] and (Path(given["workdir"]) / "config.json").is_file():
        defaults = read_config(Path(given["workdir"]) / "config.json")

    def train(
        *,
        workdir: Annotated[str, tyro.conf.arg(metavar="FOLDER")],
        preset: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None,
        config: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None,
        dry_run: bool = False,
        profile: Annotated[tuple[int, int] | None, tyro.conf.arg(metavar="STEP COUNT")] = None,
        compilation_cache: Annotated[str | None, tyro.conf.arg(metavar="FOLDER")] = None,
        processes: Processes = Processes(),  # noqa: B008
        run: Annotated[TrainConfig, tyro.conf.arg(name="")] = defaults,
    ) -> int:
        """Train a model in JAX: `--model NAME --data PATH --workdir FOLDER --epochs N`, and what else is to differ.

        Short names: --model, --weights, --data, --validation, and --mesh data=2,fsdp=4 for the three of them. A work
        directory that holds a run is gone on with, by its own options where none are given. Status 75: SIGTERM came,
        everything is saved, run again to go on.

        Args:
            workdir: Gets configuration, log and checkpoints; a run that is there goes on.
            preset: A published recipe to begin with: an unknown one lists them all.
            config: A YAML or JSON file of options to begin with, such as the config.json of a work directory.
            dry_run: Print parameters, operations, memory and shardings, and train nothing.
            profile: Keep a trace of so many steps after a step, in the work directory.
            compilation_cache: Keep compiled programs there, for the next start.
        """
        del preset, config
        return _train(run, Path(workdir), processes, dry_run, profile, compilation_cache)

    return train


def longer(args: Sequence[str]) -> list[str]:
    """Arguments with their short names written out.

    Raises:
        VitportError: for a mesh that cannot be read.
    """
    result: list[str] = []
    rest = list(args)
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        if name == "--mesh":
            result += _mesh(value if equals else rest.pop(0) if rest else "")
        else:
            result.append(SHORT.get(name, name) + equals + value)
    return result


def _mesh(text: str) -> list[str]:
    result = []
    for part in text.split(","):
        axis, _, size = part.partition("=")
        if axis not in ("data", "fsdp", "tensor") or not size.removeprefix("-").isdigit():
            raise VitportError(f"--mesh {text} is no mesh: give the devices of each axis, as in data=2,fsdp=2,tensor=2.")
        result += [f"--mesh.{axis}={size}"]
    return result


def _value(args: Sequence[str], option: str) -> str | None:
    for at, arg in enumerate(args):
        name, equals, value = arg.partition("=")
        if name == option:
            return value if equals else args[at + 1] if at + 1 < len(args) else None
    return None


def _train(
    options: Any, workdir: Path, processes: Any, dry_run: bool, profile: tuple[int, int] | None, cache: str | None
) -> int:
    import jax

    from vit_jax.training.pictures_of_run import draw
    from vit_jax.training.plan import plan
    from vit_jax.training.processes import join
    from vit_jax.training.run import STOPPED, Telling, run
    from vit_jax.training.setup import set_up

    if cache is not None:
        jax.config.update("jax_compilation_cache_dir", cache)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    join(processes)
    setup = set_up(options)
    if dry_run:
        _print_plan(setup, plan(setup))
        return 0
    heard = jax.process_index() == 0
    tell = Telling(
        _tell if heard else _nothing, _print_line if heard else _nothing, _print_scores if heard else _nothing
    )
    if heard:
        _tell(_begin(setup, workdir))
    finished = run(setup, workdir, tell, profile)
    for name, reason in finished.skipped.items():
        _tell(f"skipped {name}: {reason}")
    if heard and not finished.stopped:
        for path in draw(workdir, finished.scores, setup.train.classes):
            _tell(f"wrote {path}")
    return STOPPED if finished.stopped else _end(finished, workdir, heard)


def _begin(setup: Setup, workdir: Path) -> str:
    from vit_spec import count_parameters

    validation = "none" if setup.validation is None else f"{len(setup.validation)}"
    return (
        f"{count_parameters(setup.model) / 1e6:.2f} M parameters, {len(setup.train)} pictures to train on, {validation} "
        f"to validate on, {len(setup.train.classes)} classes, {setup.steps} steps of {setup.options.batch}, into {workdir}"
    )


def _end(finished: Finished, workdir: Path, heard: bool) -> int:
    if heard:
        done = f"finished {finished.step} steps"
        if finished.scores is not None:
            right = finished.scores.metrics()["accuracy"]
            done += f": {right:.2%} of {finished.scores.pictures} validation pictures right"
        _tell(f"{done}; `vitport convert {workdir} OUT --to FORMAT` exports the weights")
    return 0


def _print_line(line: Line, steps: int) -> None:
    mfu = f"{line.teraflops * 1000:.0f} GFLOP/s" if line.mfu is None else f"MFU {line.mfu:.1%}"
    minutes, seconds = divmod(round(line.seconds_left), 60)
    _tell(
        f"step {line.step}/{steps}  loss {line.loss:.4f}  {line.images_per_second:.0f} images/s  {mfu}  "
        f"data wait {line.data_wait:.1%}  {minutes}:{seconds:02d} left"
    )


def _print_scores(step: int, metrics: Any) -> None:
    _tell(f"step {step}  validation: " + "  ".join(f"{name} {value:.4f}" for name, value in metrics.items()))


def _print_plan(setup: Setup, found: Any) -> None:
    for name, value in found.facts.items():
        say(f"{name}: {value}")
    rows = [[path, "x".join(map(str, shape)) or "()", spec] for path, shape, spec in found.parameters]
    print_table(["parameter", "shape", "<sharding"], rows)


def _tell(text: str) -> None:
    say(text)
    sys.stdout.flush()


def _nothing(*told: Any) -> None:
    del told


