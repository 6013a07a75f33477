"""``vitport train``: a run from a configuration, or from where its work directory left it."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import jax
import tyro

from vit_cli.parsing import parsed as read_arguments
from vit_cli.terminal import print_table, say
from vit_jax.training.devices.processes import join
from vit_jax.training.evaluation.charts import draw
from vit_jax.training.recipe.config import Processes, TrainConfig, read_config
from vit_jax.training.recipe.presets import get_preset
from vit_jax.training.run.loop import CONFIG, STOPPED, Finished, Telling, run
from vit_jax.training.run.monitor import Line
from vit_jax.training.run.plan import Plan, plan
from vit_jax.training.run.setup import Setup, set_up
from vit_spec import VitportError, count_parameters


def parsed(args: Sequence[str]) -> Callable[[], int]:
    """The run that arguments after the word ``train`` ask for, not begun.

    Raises:
        VitportError: if they make no run; SystemExit for help.
    """
    command = _with_defaults(args)

    return read_arguments(
        lambda: tyro.cli(command, prog="vitport train", args=args, config=(tyro.conf.FlagCreatePairsOff,))
    )


def _with_defaults(args: Sequence[str]) -> Callable[..., Callable[[], int]]:
    """The command with the defaults that its arguments name: a preset, a file, or the work directory's own."""
    given = {name: _value(args, f"--{name}") for name in ("preset", "config", "workdir")}
    if given["preset"] and given["config"]:
        raise VitportError("--preset and --config both give defaults: give one, and change it by further options.")
    defaults = TrainConfig()
    if given["preset"]:
        defaults = get_preset(given["preset"]).config
    elif given["config"]:
        defaults = read_config(given["config"])
    elif given["workdir"] and (Path(given["workdir"]) / CONFIG).is_file():
        defaults = read_config(Path(given["workdir"]) / CONFIG)
    # The run's length as it is said here takes the place of the other way to say it.
    for length, other in (("steps", "epochs"), ("epochs", "steps")):
        if _value(args, f"--{length}") not in (None, "None"):
            defaults = dataclasses.replace(defaults, **{other: None})

    def train(
        *,
        workdir: Annotated[str, tyro.conf.arg(metavar="FOLDER")],
        preset: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None,
        config: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None,
        dry_run: bool = False,
        profile: Annotated[tuple[int, int] | None, tyro.conf.arg(metavar="STEP COUNT")] = None,
        compilation_cache: Annotated[str | None, tyro.conf.arg(metavar="FOLDER")] = None,
        processes: Processes = Processes(),  # noqa: B008
        options: Annotated[TrainConfig, tyro.conf.arg(name="")] = defaults,
    ) -> Callable[[], int]:
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
        return partial(_train, options, Path(workdir), processes, dry_run, profile, compilation_cache)

    return train


def _value(args: Sequence[str], option: str) -> str | None:
    for at, arg in enumerate(args):
        name, equals, value = arg.partition("=")
        if name == option:
            return value if equals else args[at + 1] if at + 1 < len(args) else None
    return None


def _train(
    options: TrainConfig,
    workdir: Path,
    processes: Processes,
    dry_run: bool,
    profile: tuple[int, int] | None,
    cache: str | None,
) -> int:
    if cache is not None:
        _make_folder(cache)
        jax.config.update("jax_compilation_cache_dir", cache)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    join(processes)
    setup = set_up(options)
    heard = jax.process_index() == 0
    asked = options.remat not in ("auto", "none") and not options.scan
    if heard and asked and options.parallel == "pmap" and jax.default_backend() == "cpu":
        _tell(f"remat={options.remat} saves no memory on a CPU with parallel=pmap: give --scan, or --parallel jit")
    if dry_run:
        _print_plan(setup, plan(setup))
        return 0
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
    return _end(finished, workdir, heard)


def _make_folder(path: str) -> None:
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VitportError(
            f"--compilation-cache {path} is no folder and cannot be made one ({error.strerror}): choose another."
        ) from error


def _begin(setup: Setup, workdir: Path) -> str:
    validation = "none" if setup.validation is None else f"{len(setup.validation)}"
    return (
        f"{count_parameters(setup.model) / 1e6:.2f} M parameters, {len(setup.train)} pictures to train on, "
        f"{validation} to validate on, {len(setup.train.classes)} classes, {setup.steps} steps of "
        f"{setup.options.batch}, into {workdir}"
    )


def _end(finished: Finished, workdir: Path, heard: bool) -> int:
    if finished.stopped:
        if heard:
            _tell(f"stopped by SIGTERM after step {finished.step}, which is saved in {workdir}: run again to go on")
        return STOPPED
    if heard:
        done = f"finished {finished.step} steps"
        if finished.scores is not None:
            right = finished.scores.metrics()["accuracy"]
            done += f": {right:.2%} of {finished.scores.pictures} validation pictures right"
        _tell(f"{done}; `vitport convert {workdir} OUT --to FORMAT` exports the weights")
    return 0


def _print_line(line: Line, steps: int) -> None:
    parts = [f"step {line.step}/{steps}", f"loss {line.loss:.4f}"]
    if (speed := line.throughput) is not None:
        minutes, seconds = divmod(round(speed.seconds_left), 60)
        parts += [
            f"{speed.images_per_second:.0f} images/s",
            f"{speed.teraflops * 1000:.0f} GFLOP/s" if speed.mfu is None else f"MFU {speed.mfu:.1%}",
            f"data wait {speed.data_wait:.1%}",
            f"{minutes}:{seconds:02d} left",
        ]
    _tell("  ".join(parts))


def _print_scores(step: int, metrics: Any) -> None:
    _tell(f"step {step}  validation: " + "  ".join(f"{name} {value:.4f}" for name, value in metrics.items()))


def _print_plan(setup: Setup, found: Plan) -> None:
    for name, value in found.facts.items():
        say(f"{name}: {value}")
    rows = [[path, "x".join(map(str, shape)) or "()", spec] for path, shape, spec in found.parameters]
    print_table(["parameter", "shape", "<sharding"], rows)


def _tell(text: str) -> None:
    say(text)
    sys.stdout.flush()


def _nothing(*told: Any) -> None:
    del told
