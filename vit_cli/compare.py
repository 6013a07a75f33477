"""``vitport compare``: two runs of a model, layer by layer, and what is wrong with them."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from vit_cli.frameworks import require_torch
from vit_cli.reading import ImageSize, Json, Options, Reading
from vit_cli.terminal import say, spinner, write_json
from vit_spec import VitportError

if TYPE_CHECKING:
    import numpy as np

    from conversion import Checkpoint
    from vit_parity import Capture, Comparison, Explanation
    from vit_parity.endpoints import Endpoint
    from vit_parity.gradients import GradientRow
    from vit_parity.replay import Subject
    from vit_parity.report import Extras

DtypeName = Literal["float64", "float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class Findings:
    """All that one call of the command found out."""

    comparison: Comparison
    explanations: tuple[Explanation, ...] | None
    """``None`` where they were not asked for."""
    local_errors: dict[str, dict[str, float]] | None
    """Title of a run → block → its error on the truth's input."""
    subject: Subject | None = None
    """The model, where there are weights."""
    gradients: tuple[GradientRow, ...] | None = None
    """In the order of the backward pass; ``None`` where they were not asked for."""


def compare(
    a: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="A")],
    b: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="B")] = None,
    *,
    image: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None,
    seed: int = 0,
    image_size: ImageSize = None,
    dtype: DtypeName = "float32",
    all_layers: Annotated[bool, tyro.conf.arg(name="all")] = False,
    worst_first: bool = False,
    explain: bool = False,
    teacher_forced: bool = False,
    gradients: bool = False,
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

    Args:
        a: The reference.
        b: What is measured.
        image: Picture to run on; without one, standard normal numbers. A capture brings its own.
        seed: Seed of those numbers.
        image_size: Pixels, a side or height and width, to run at instead of the weights' own.
        dtype: Of torch: and jax: runs.
        all_layers: Show every activation, not only the tokens after each block.
        worst_first: Sort by how far beyond rounding they are.
        explain: Name the causes of what rounding does not explain.
        teacher_forced: Also give each block of torch: and jax: runs the truth's input, and measure its own error.
        gradients: Also compare the gradients of torch: and jax: runs, from the head to the picture.
        fail_above: Exit with status 1, naming the first layer whose relative difference is above X.
        save_capture: Write A's activations to a .npz or .safetensors file; without B nothing is compared.
        report: Write one self-contained HTML file with charts; it names causes as --explain does.
        figure: Draw the errors by depth into a .png or .svg file.
        as_json: Print JSON instead of tables.
    """
    _check_destinations(save_capture, report, figure)
    runs = _Runs.of(a, b, only_a=save_capture is not None and b is None, dtype=dtype)
    checkpoints = runs.load(reading, image_size)
    images, input_name = runs.images(checkpoints, image, seed)
    with spinner("Running both sides"):
        captured = runs.run(checkpoints, images, reading.model)
    if save_capture is not None:
        from vit_parity.capture_file import save_capture as save

        save(captured[0], save_capture)
        if b is None:
            say(f"wrote {save_capture}: {len(captured[0].activations)} activations of {captured[0].title}")
            return
    with spinner("Measuring against float64"):
        causes = explain or (report is not None and any(checkpoints))
        found = runs.measure(captured, checkpoints, reading if causes else None, teacher_forced=teacher_forced)
    if gradients:
        with spinner("Comparing the gradients"):
            found = replace(found, gradients=runs.gradients(checkpoints, images))
    if report is not None or figure is not None:
        with spinner("Drawing"):
            runs.draw(found, checkpoints, report, figure)
    from vit_cli.compare_output import print_findings, to_json

    if as_json:
        write_json(to_json(found, image=image, seed=None if image else seed))
    else:
        print_findings(found, input_name, all_layers=all_layers, worst_first=worst_first)
    _check(found.comparison, fail_above)


@dataclass(frozen=True)
class _Runs:
    """The sides of the comparison, one where only a capture is wanted."""

    endpoints: tuple[Endpoint, ...]
    dtype: DtypeName

    @classmethod
    def of(cls, a: str, b: str | None, *, only_a: bool, dtype: DtypeName) -> _Runs:
        from vit_parity.endpoints import parse_endpoint

        first = parse_endpoint(a)
        if only_a:
            endpoints = (first,)
        elif b is not None:
            endpoints = (first, parse_endpoint(b))
        elif first.kind == "torch":
            endpoints = (first, parse_endpoint(f"jax:{first.path}"))
        else:
            raise VitportError(f"{a} has nothing to be compared with: give B too, or weights without {first.kind}:.")
        if any(endpoint.kind in ("torch", "transformers", "timm") for endpoint in endpoints):
            require_torch("compare")
        return cls(endpoints, dtype)

    def load(self, reading: Reading, image_size: int | tuple[int, int] | None) -> list[Checkpoint | None]:
        """The weights of each side, fitted to the size of a capture's pictures where there is one."""
        from vit_parity.capture_file import load_capture

        for endpoint in self.endpoints:
            if endpoint.kind == "capture" and image_size is None:
                height, width = load_capture(Path(endpoint.path)).images.shape[1:3]
                image_size = (height, width)
        own = [at for at in self.endpoints if at.kind != "capture" and not at.borrows]
        weights = {at.path: reading.load(at.path, image_size) for at in own}
        lent = weights[own[0].path] if own else None
        for endpoint in self.endpoints:
            if endpoint.borrows and lent is None:
                raise VitportError(f"{endpoint.title} is a name without weights: give weights as the other side.")
        return [lent if at.borrows else weights.get(at.path) for at in self.endpoints]

    def images(self, checkpoints: list[Checkpoint | None], image: str | None, seed: int) -> tuple[np.ndarray, str]:
        """(B, H, W, C), preprocessed, and what they are, in words."""
        import numpy as np

        import conversion
        from vit_parity.capture_file import load_capture

        for endpoint in self.endpoints:
            if endpoint.kind == "capture":
                return load_capture(Path(endpoint.path)).images, f"the pictures of {endpoint.path}"
        checkpoint = next(entry for entry in checkpoints if entry is not None)
        if image is not None:
            return conversion.load_image(image, checkpoint.preprocessing)[None], image
        shape = (1, *checkpoint.config.image_size, checkpoint.config.in_channels)
        numbers = np.random.default_rng(seed).standard_normal(shape, np.float32)
        return numbers, f"standard normal numbers (seed {seed})"

    def run(self, checkpoints: list[Checkpoint | None], images: np.ndarray, model: str | None) -> list[Capture]:
        from vit_parity.endpoints import run_endpoint

        pairs = zip(self.endpoints, checkpoints, strict=True)
        return [run_endpoint(endpoint, checkpoint, images, self.dtype, model) for endpoint, checkpoint in pairs]

    def gradients(self, checkpoints: list[Checkpoint | None], images: np.ndarray) -> tuple[GradientRow, ...]:
        """Both sides' gradients of one random linear function of the answer."""
        from vit_parity.gradients import compare_gradients, gradients_of

        sides = [
            gradients_of(endpoint.kind, checkpoint, images, self.dtype)
            for endpoint, checkpoint in zip(self.endpoints, checkpoints, strict=True)
            if checkpoint is not None and (endpoint.kind == "torch" or endpoint.kind == "jax")
        ]
        if len(sides) != 2 or checkpoints[0] is None:
            raise VitportError("--gradients compares torch: and jax: alone: give weights for A and for B.")
        truth = gradients_of("torch", checkpoints[0], images, "float64")
        return tuple(compare_gradients(sides[0], sides[1], truth))

    def draw(
        self, found: Findings, checkpoints: list[Checkpoint | None], report: Path | None, figure: Path | None
    ) -> None:
        """The HTML file and the static chart."""
        from vit_parity.figure import write_growth
        from vit_parity.report import write_report

        extras = self._extras(found, checkpoints)
        if report is not None:
            write_report(found.comparison, report, extras)
        if figure is not None:
            write_growth(found.comparison, figure, extras)

    def _extras(self, found: Findings, checkpoints: list[Checkpoint | None]) -> Extras | None:
        """What is drawn besides the comparison; a side that is ours is run in two more dtypes for it."""
        from vit_parity.endpoints import run_endpoint
        from vit_parity.report import Extras

        known = self._known(checkpoints)
        if not known:
            return None
        images = found.comparison.a.images
        ours = [pair for pair in known if pair[0].kind in ("torch", "jax")]
        dtypes: tuple[DtypeName, ...] = ("float32", "bfloat16", "float16")
        others = [run_endpoint(*ours[-1], images, dtype) for dtype in dtypes if ours and dtype != self.dtype]
        checkpoint = known[0][1]
        hashes = {endpoint.path: entry.provenance.sha256 for endpoint, entry in known}
        causes = found.explanations or ()
        return Extras(checkpoint.config, checkpoint.preprocessing, found.subject, others, causes, hashes)

    def measure(
        self,
        captured: list[Capture],
        checkpoints: list[Checkpoint | None],
        explained_by: Reading | None,
        *,
        teacher_forced: bool,
    ) -> Findings:
        """Compare, and look for causes where ``explained_by`` can read the weights as their file holds them."""
        from vit_parity import compare_captures
        from vit_parity.endpoints import local_errors
        from vit_parity.explain import explain
        from vit_parity.hypotheses import Origin
        from vit_parity.replay import Subject, float64_params
        from vit_parity.truth import truth_of

        known = self._known(checkpoints)
        if not known:
            if explained_by or teacher_forced:
                raise VitportError("Two captures alone cannot be explained: give weights for A or B.")
            return Findings(compare_captures(*captured), None, None)
        require_torch("compare")
        (endpoint, checkpoint), images = known[0], captured[0].images
        truth = truth_of(checkpoint, images)
        subject = Subject(checkpoint.config, float64_params(checkpoint.params), images)
        comparison = compare_captures(captured[0], captured[1], truth=truth, subject=subject)
        explanations, errors = None, None
        if explained_by is not None:
            origin = Origin(checkpoint.preprocessing, explained_by.load(endpoint.path))
            explanations = tuple(cause for run in captured for cause in explain(run, subject, origin))
        if teacher_forced:
            own = [(endpoint, entry) for endpoint, entry in known if endpoint.kind in ("torch", "jax")]
            errors = {endpoint.title: local_errors(endpoint, entry, truth, self.dtype) for endpoint, entry in own}
        return Findings(comparison, explanations, errors, subject)

    def _known(self, checkpoints: list[Checkpoint | None]) -> list[tuple[Endpoint, Checkpoint]]:
        """The sides that have weights of their own."""
        sides = zip(self.endpoints, checkpoints, strict=True)
        return [(endpoint, entry) for endpoint, entry in sides if entry is not None and not endpoint.borrows]


def _check_destinations(capture: Path | None, report: Path | None, figure: Path | None) -> None:
    """Refuses what could not be written before anything is run."""
    if figure is not None:
        from vit_parity.figure import check_figure

        check_figure(figure)
    for path in (capture, report, figure):
        if path is not None and (path.is_dir() or not path.parent.is_dir()):
            raise VitportError(f"{path} cannot be written: give a file name in a folder that exists.")


def _check(comparison: Comparison, fail_above: float | None) -> None:
    """Leaves with status 1 at the first layer that is too far off."""
    offender = None if fail_above is None else comparison.first_above(fail_above)
    if offender is not None:
        far = f"{offender.difference.relative:.1e}"
        sys.stderr.write(f"vitport: {offender.name} differs by {far}, which is above {fail_above:g}.\n")
        raise SystemExit(1)
