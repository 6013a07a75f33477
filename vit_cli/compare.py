"""``vitport compare``: two runs of a model, layer by layer, and what is wrong with them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from vit_cli.reading import ImageSize, Json, Options, Reading, check_limit
from vit_cli.terminal import say, say_error, spinner, write_json
from vit_spec import VitportError
from vit_spec.arguments import changed

if TYPE_CHECKING:
    from vit_parity.compare import Findings
    from vit_parity.porting import ComparedSteps, DigestFindings
    from vit_parity.runs import Runs

DtypeName = Literal["float64", "float32", "bfloat16", "float16"]


def compare(
    a: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="A")] = None,
    b: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="B")] = None,
    *,
    own_a: Annotated[str | None, tyro.conf.arg(name="a", metavar="MODULE:FUNCTION")] = None,
    own_b: Annotated[str | None, tyro.conf.arg(name="b", metavar="MODULE:FUNCTION")] = None,
    pairs: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None,
    image: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None,
    seed: int = 0,
    image_size: ImageSize = None,
    dtype: DtypeName = "float32",
    all_layers: Annotated[bool, tyro.conf.arg(name="all")] = False,
    worst_first: bool = False,
    explain: bool = False,
    teacher_forced: bool = False,
    gradients: bool = False,
    masks: bool = False,
    memory: float = 1.0,
    fail_above: Annotated[float | None, tyro.conf.arg(metavar="X")] = None,
    save_capture: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None,
    report: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None,
    figure: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None,
    as_json: Json = False,
    reading: Options,
) -> None:
    """Measure layer by layer how far two models differ.

    A and B are weights, run by torch:PATH (the default), jax:PATH, transformers:FOLDER, timm:FILE or onnx:FILE; or
    timm:NAME, run with the other side's weights; or a saved capture. Without B, weights in PyTorch are compared with
    the same in JAX. Both are measured against A's weights in float64 too. See docs/comparing.md.

    Models of your own, in any framework, are given by --a and --b: functions that return a model, or a model and its
    inputs. They are imported and run. See docs/tutorials/porting.md; of the other options, --pairs, --all, --gradients,
    --masks, --report and --json concern them. Folders that vitport.capturing wrote are compared step by step.

    The exit status is 0 where rounding explains every difference, 1 where it does not, and 2 where nothing could be
    compared.

    Args:
        a: The reference.
        b: What is measured.
        own_a: The reference, if it is a model of your own; also a capture, or an .onnx file.
        own_b: What is measured, if it is a model of your own; it gets A's inputs if it brings none.
        pairs: Which stages of your own models belong together; drafted by default.
        image: Image to run on; without one, standard normal numbers. A capture brings its own.
        seed: Seed of those numbers.
        image_size: Pixels, a side or height and width, to run at instead of the weights' own.
        dtype: Of torch: and jax: runs.
        all_layers: Show every activation, not only the tokens after each block.
        worst_first: Sort by how far differences exceed rounding.
        explain: Name the causes of differences that rounding does not explain.
        teacher_forced: Also run each block of torch: and jax: sides on the exact input, and measure its own error.
        gradients: Also compare gradients, from the output to the inputs, of torch: and jax: runs or of your own models.
        masks: Your own models are in training mode: A draws its random masks (dropout, drop path), and both use them.
        memory: Gigabytes that activations may take at once, beside weights and libraries; the rest goes to a temporary
            file.
        fail_above: Exit with status 1 only where a relative difference is above X, and name the first such layer.
        save_capture: Write A's activations to a .npz or .safetensors file; without B nothing is compared.
        report: Write one self-contained HTML file with charts; it names causes like --explain.
        figure: Draw the errors by depth into a .png or .svg file.
        as_json: Print JSON instead of tables.
    """
    given = dict(locals())
    check_limit(fail_above)
    _check_destinations(save_capture, report, figure)
    if own_a is not None or own_b is not None or pairs is not None or masks:
        _check_own(given)
        asked = {"pairs": pairs, "gradients": gradients, "masks": masks}
        _compare_own(own_a, own_b, asked, report, all_layers=all_layers, as_json=as_json)
        return
    if a is None:
        raise VitportError("Nothing is named to compare: give weights, A and B, or models of your own, --a and --b.")
    only_a = save_capture is not None and b is None
    with spinner("Running both sides"):
        runs = _run(a, b, only_a=only_a, reading=reading, images=image, seed=seed, image_size=image_size, dtype=dtype)
    if save_capture is not None:
        from vit_parity.capture_file import save_capture as save

        saved = runs.flows[0].capture()
        save(saved, save_capture)
        if only_a:
            say(f"wrote {save_capture}: {len(saved.activations)} activations of {saved.title}")
            return
    from vit_parity.compare import measure

    with spinner("Measuring against float64"):
        causes = explain or (report is not None and bool(runs.with_weights))
        drawn = report is not None or figure is not None
        options = {"local_errors": teacher_forced, "gradients": gradients, "memory": memory}
        found = measure(runs, explain=causes, depths=drawn, **options)
    if report is not None or figure is not None:
        with spinner("Drawing"):
            _draw(found, report, figure)
    from vit_cli.compare_output import print_findings, to_json

    if as_json:
        write_json(to_json(found, image=image, seed=None if image else seed))
    else:
        print_findings(found, all_layers=all_layers, worst_first=worst_first)
    _check(found, fail_above)


def _check_own(given: dict[str, Any]) -> None:
    """Refuses what does not concern two models of the user's own, rather than leave it out in silence."""
    concerned = ("own_a", "own_b", "pairs", "all_layers", "gradients", "masks", "report", "as_json", "reading")
    stray = changed(compare, {name: value for name, value in given.items() if name not in concerned})
    words = [{"a": "A", "b": "B"}.get(name, f"--{name.replace('_', '-')}") for name in stray]
    if given["reading"] != Reading():
        words.append("what says how to read weights")
    if words:
        raise VitportError(
            f"{', '.join(words)}: for weights alone. Two models of your own are given as --a MODULE:FUNCTION --b "
            "MODULE:FUNCTION, with --pairs, --all, --gradients, --masks, --report and --json: leave out the rest."
        )


def _compare_own(
    a: str | None, b: str | None, asked: dict[str, Any], report: Path | None, *, all_layers: bool, as_json: bool
) -> None:  # fmt: skip
    """Two models of the user's own."""
    if a is None or b is None:
        raise VitportError("Two models of your own are given as --a MODULE:FUNCTION --b MODULE:FUNCTION: give both.")
    from vit_cli.compare_output import print_porting
    from vit_parity import porting
    from vit_parity.porting.own_code import own_model

    if Path(a).is_dir() and Path(b).is_dir():
        _tell(porting.compare_steps(a, b, asked["pairs"]), asked | {"pairs": None}, report, as_json=as_json)
        return
    with spinner("Running both models"):
        (first, inputs), (second, inputs_b) = own_model(a, "--a"), own_model(b, "--b")
        if inputs is None:
            inputs, inputs_b = inputs_b, None
        if isinstance(first, porting.Digest) or isinstance(second, porting.Digest):
            alike = porting.compare_digests(first, second, inputs, inputs_b=inputs_b, pairs=asked["pairs"])
            _tell(alike, asked | {"pairs": None}, report, as_json=as_json)
            return
        found = porting.compare(first, second, inputs, inputs_b=inputs_b, **asked)
    if report is not None:
        with spinner("Drawing"):
            found.write_report(report)
    if as_json:
        write_json(found.to_dict())
    else:
        print_porting(found, all_layers=all_layers)
    if not found.equal:
        raise SystemExit(1)


def _tell(
    found: ComparedSteps | DigestFindings, asked: dict[str, Any], report: Path | None, *, as_json: bool
) -> None:  # fmt: skip
    """What has no report and no gradients of its own."""
    if report is not None or any(asked.values()):
        raise VitportError("Steps and digests have no --report, --gradients or --masks: leave them out.")
    if as_json:
        write_json(found.to_dict())
    else:
        say(str(found))
    if not found.equal:
        raise SystemExit(1)


def _run(a: str, b: str | None, *, only_a: bool, reading: Reading, **options: Any) -> Runs:
    from vit_parity.compare import endpoints, run
    from vit_parity.endpoints import parse_endpoint

    ends = (parse_endpoint(a),) if only_a else endpoints(a, b)
    return run(ends, partial(reading.load, several=True), model=reading.model, **options)


def _draw(found: Findings, report: Path | None, figure: Path | None) -> None:
    """The HTML file and the static chart."""
    from vit_parity.figure import write_growth
    from vit_parity.report import extras_of, write_report

    extras = extras_of(found)
    if report is not None:
        write_report(found.comparison, report, extras)
    if figure is not None:
        write_growth(found.comparison, figure, extras)


def _check_destinations(capture: Path | None, report: Path | None, figure: Path | None) -> None:
    """Refuse paths that cannot be written, before anything runs."""
    from conversion.destination import writable_file

    if figure is not None:
        from vit_parity.figure import check_figure

        check_figure(figure)
    for path, ending in ((capture, ""), (report, ".html"), (figure, "")):
        if path is not None:
            writable_file(path, ending=ending)


def _check(found: Findings, fail_above: float | None) -> None:
    """Exit with status 1 where rounding does not explain a difference; given a limit, where one is above that."""
    if fail_above is None:
        if found.comparison.first_divergence is not None or found.explanations:
            raise SystemExit(1)
        return
    offender = found.comparison.first_above(fail_above)
    if offender is not None:
        far = f"{offender.difference.relative:.1e}"
        say_error(f"{offender.name} differs by {far}, which is above {fail_above:g}.")
        raise SystemExit(1)
