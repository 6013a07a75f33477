"""``vitport train``: train a model from a configuration, or resume the run in a work directory."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from vit_cli.compilation_cache import keeping_programs
from vit_cli.terminal import print_table, say, say_error, skipped
from vit_cli.workdir import config_of, refuse_held
from vit_jax.training.recipe.config import Processes, TrainConfig, config_from_dict, read_config
from vit_jax.training.recipe.finetuning import FINETUNE, completed, in_words
from vit_jax.training.recipe.presets import get_preset
from vit_spec import VitportError, count_parameters, remarks

if TYPE_CHECKING:
    from vit_jax.training.run.loop import Finished
    from vit_jax.training.run.monitor import Line
    from vit_jax.training.run.plan import Plan
    from vit_jax.training.run.setup import Setup

SHORT_NAMES = {
    "--model": "--model.name",
    "--weights": "--model.weights",
    "--data": "--data.path",
    "--validation": "--data.validation",
    "--freeze": "--recipe.optimizer.frozen",
}
"""The most frequent options, by shorter names."""
FLAGS = {"--scan": "--scan=True", "--no-scan": "--scan=False"}
"""Options that stand alone for a value."""


def train_with_defaults(args: Sequence[str]) -> Callable[..., int]:
    """The subcommand, whose defaults are those of the preset, the file or the work directory that its arguments name.

    Args:
        args: after the word ``train``, with :func:`long_names`.

    Raises:
        VitportError: if the preset or the configuration cannot be read.
    """
    given = {name: _value(args, f"--{name}") for name in ("preset", "config", "workdir")}
    if given["preset"] and given["config"]:
        raise VitportError("--preset and --config both give defaults: give one, and change it by further options.")
    weights = _value(args, "--model.weights")
    plain = defaults = FINETUNE if weights else TrainConfig()
    if given["preset"]:
        defaults = get_preset(given["preset"]).config
    elif given["config"]:
        from conversion.containers.yaml_file import read_yaml
        from conversion.hub import local

        defaults = config_from_dict(completed(read_yaml(local(given["config"])), weights), given["config"])
    elif given["workdir"] and (found := config_of(given["workdir"])) is not None:
        defaults = read_config(found)
    names_no_data = defaults is plain and _value(args, "--data.path") is None
    # A length on the command line replaces the default's, in whichever of the two units that is.
    for length, other in (("steps", "epochs"), ("epochs", "steps")):
        if _value(args, f"--{length}") not in (None, "None"):
            defaults = dataclasses.replace(defaults, **{other: None})

    def train(
        *,
        workdir: Annotated[str, tyro.conf.arg(metavar="FOLDER")],
        preset: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None,
        config: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None,
        dry_run: bool = False,
        on: Annotated[str | None, tyro.conf.arg(metavar="TOPOLOGY")] = None,
        search: bool = False,
        classes: int | None = None,
        json: bool = False,
        profile: Annotated[tuple[int, int] | None, tyro.conf.arg(metavar="STEP COUNT")] = None,
        compilation_cache: Annotated[str | None, tyro.conf.arg(metavar="FOLDER")] = None,
        processes: Processes = Processes(),  # noqa: B008
        options: Annotated[TrainConfig, tyro.conf.arg(name="")] = defaults,
    ) -> int:
        """Train a model in JAX, on one device or on a pod.

        A first run: `vitport train --weights FILE --data PATH --workdir FOLDER` fine-tunes by the preset finetune;
        `--model NAME --epochs N` instead of weights trains from random values. Short names: --model, --weights,
        --data, --validation, --freeze, and --mesh data=2,fsdp=4 for the three mesh options. A work directory that
        holds a run resumes it; options that are not given are the run's own. Exit status 75 or 130: SIGTERM or
        Ctrl-C stopped the run, everything is saved, run the command again to resume.

        Args:
            workdir: Holds configuration, log and checkpoints, here or in a bucket (gs://); a run in it is resumed.
            preset: A published recipe to start from; an unknown name lists them all.
            config: A YAML or JSON file of options to start from, such as the config.json of a work directory.
            dry_run: Print parameters, operations, memory and shardings, and train nothing.
            on: With --dry-run: compile the step for chips that are not here, such as v5e:4x4 or h100:2x8, and print
                memory, collectives and the time that follow.
            search: With --on: try meshes, rematerialisation and accumulation on paper, compile the best few, with and
                without a scan, and print the fastest.
            classes: With --on: classes of data that are not here; the data are not opened.
            json: With --on: print JSON.
            profile: Trace COUNT steps after step STEP, and write the trace into the work directory.
            compilation_cache: Keep compiled programs in this folder or bucket, so that the next start is faster.
        """
        del preset, config  # they gave the defaults
        if on is not None:
            _check_ahead(dry_run)
            from vit_cli.ahead import compile_step, search_step

            (search_step if search else compile_step)(options, on, classes, json)
            return 0
        for name, given in {"search": search, "json": json, "classes": classes is not None}.items():
            if given:
                raise VitportError(f"--{name} is for --dry-run --on TOPOLOGY: give it too.")
        if not dry_run:
            refuse_held(workdir)  # the run itself does too, but reading data and weights before it may take long
        if names_no_data and not dry_run:
            _print("note: no --data is given, so these are scikit-learn's handwritten digits")
        with keeping_programs(compilation_cache):
            return _train(options, workdir, processes, dry_run, profile)

    return train


def long_names(args: Sequence[str]) -> list[str]:
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
        elif name in FLAGS and not equals and rest[:1] not in (["True"], ["False"], ["auto"]):
            result.append(FLAGS[name])
        else:
            result.append(SHORT_NAMES.get(name, name) + equals + value)
    return result


def _mesh(text: str) -> list[str]:
    result: list[str] = []
    for part in text.split(","):
        axis, _, size = part.partition("=")
        once = not any(other.startswith(f"--mesh.{axis}=") for other in result)
        if axis not in ("data", "fsdp", "tensor") or not size.removeprefix("-").isdigit() or not once:
            raise VitportError(
                f"--mesh {text} cannot be read: give each axis its number of devices once, as in "
                "data=2,fsdp=2,tensor=2."
            )
        result.append(f"--mesh.{axis}={size}")
    return result


def _value(args: Sequence[str], option: str) -> str | None:
    for at, arg in enumerate(args):
        name, equals, value = arg.partition("=")
        if name == option:
            return value if equals else args[at + 1] if at + 1 < len(args) else None
    return None


def _train(
    options: TrainConfig,
    workdir: str,
    processes: Processes,
    dry_run: bool,
    profile: tuple[int, int] | None,
) -> int:
    import jax

    from conversion.source import CHANGED
    from vit_jax.training.devices.processes import UnmetProcessesError, join
    from vit_jax.training.run.setup import set_up

    try:
        join(processes)
    except UnmetProcessesError as error:
        say_error(str(error))
        return 75
    setup = set_up(options)
    is_main = jax.process_index() == 0
    rematerialises = options.remat not in ("auto", "none") and not setup.scan
    if is_main and rematerialises and options.parallel == "pmap" and jax.default_backend() == "cpu":
        _print(f"remat={options.remat} saves no memory on a CPU with parallel=pmap: give --scan, or --parallel jit")
    changed = [note for note in setup.notes if note.startswith(CHANGED)]
    for note in (*changed, *setup.choices, *remarks(setup.model)) if is_main else ():
        _print(f"note: {note}")
    if dry_run:
        from vit_jax.training.run.plan import plan

        _print_plan(setup, plan(setup))
        return 0
    return _run(setup, workdir, profile, is_main)


def _check_ahead(dry_run: bool) -> None:
    if not dry_run:
        raise VitportError("--on compiles for chips that are not here, and trains nothing: give --dry-run too.")


def _run(setup: Setup, workdir: str, profile: tuple[int, int] | None, is_main: bool) -> int:
    from vit_jax.training.devices.processes import LostProcessError, end_alone
    from vit_jax.training.evaluation.charts import draw
    from vit_jax.training.run.callbacks import Callbacks
    from vit_jax.training.run.loop import run
    from vit_jax.training.run.place import Place

    if is_main:
        _print(_beginning(setup, workdir))
        if setup.options.model.weights is not None:
            _print(f"{in_words(setup.options)} (docs/training.md, Fine-tuning; options and --preset change it)")
    callbacks = Callbacks(_print, _print_line, _print_metrics) if is_main else Callbacks()
    with Place(workdir) as place:
        try:
            finished = run(setup, place, callbacks, profile)
        except LostProcessError as error:
            say_error(str(error))
            end_alone(75)
        for name, reason in finished.skipped.items():
            _print(skipped(name, reason))
        if is_main and finished.stopped is None:
            for path in draw(place.folder, finished.scores, setup.train.classes):
                _print(f"wrote {workdir.rstrip('/')}/{path.name}")
            place.push()
    return _end(finished, workdir, is_main)


def _beginning(setup: Setup, workdir: str) -> str:
    held_out = "no validation images (--data.holdout 0.1 takes a tenth of these)"
    validation = held_out if setup.validation is None else f"{len(setup.validation)} validation images"
    return (
        f"{count_parameters(setup.model) / 1e6:.2f} M parameters, {len(setup.train)} training images, "
        f"{validation}, {len(setup.train.classes)} classes, {setup.steps} steps of "
        f"{setup.options.batch}, into {workdir}"
    )


def _end(finished: Finished, workdir: str, is_main: bool) -> int:
    from vit_jax.training.evaluation.scores import main_metric
    from vit_jax.training.run.stopping import STATUS

    if finished.stopped is not None:
        name = finished.stopped.name
        after = f"after step {finished.step}, saved in {workdir}" if finished.step else "before the first step"
        if is_main:
            _print(f"stopped by {name} {after}: run again to resume")
        return STATUS[finished.stopped]
    if is_main:
        done = f"ended early, after {finished.step} steps" if finished.early else f"finished {finished.step} steps"
        if finished.scores is not None:
            name, value = main_metric(finished.scores.metrics())
            done += f": {value:.2%} {name.replace('_', ' ')} on {finished.scores.images} validation images"
        if finished.early:
            done += f"; {finished.early}"
        _print(f"{done}; `vitport convert {workdir} OUT --to FORMAT` exports the weights")
    return 0


def _print_line(line: Line, steps: int) -> None:
    parts = [f"step {line.step}/{steps}", f"loss {line.loss:.4f}", f"gradient {line.gradient_norm:.3g}"]
    if (speed := line.speed) is not None:
        minutes, seconds = divmod(round(speed.seconds_left), 60)
        parts += [
            f"{speed.images_per_second:.0f} images/s",
            f"{speed.teraflops * 1000:.0f} GFLOP/s" if speed.mfu is None else f"MFU {speed.mfu:.1%}",
            f"data wait {speed.data_wait:.1%}",
            f"{minutes}:{seconds:02d} left",
        ]
    _print("  ".join(parts))


def _print_metrics(step: int, metrics: Mapping[str, float]) -> None:
    _print(f"step {step}  validation: " + "  ".join(f"{name} {value:.4f}" for name, value in metrics.items()))


def _print_plan(setup: Setup, found: Plan) -> None:
    for name, value in found.facts.items():
        say(f"{name}: {value}")
    rows: list[Any] = [[path, "x".join(map(str, shape)) or "()", spec] for path, shape, spec in found.parameters]
    print_table(["parameter", "shape", "<sharding"], rows)


def _print(text: str) -> None:
    """At once, whatever buffers stdout."""
    say(text)
    sys.stdout.flush()


train = train_with_defaults([])
