"""Two sides run on the same images and measured against float64: what ``vitport compare`` does before it prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vit_parity.capture_file import load_capture
from vit_parity.comparison import compare_captures
from vit_parity.endpoints import Dtype, local_errors, parse_endpoint, run_endpoint
from vit_spec import VitportError
from vit_spec.frameworks import require_torch

if TYPE_CHECKING:
    from conversion import Checkpoint
    from vit_parity.capture import Capture
    from vit_parity.comparison import Comparison
    from vit_parity.endpoints import Endpoint
    from vit_parity.explain import Explanation
    from vit_parity.gradients import GradientRow
    from vit_parity.replay import Subject
    from vit_parity.report import Extras


@dataclass(frozen=True)
class Findings:
    """What a comparison found."""

    comparison: Comparison
    explanations: tuple[Explanation, ...] | None
    """``None`` where they were not asked for."""
    local_errors: dict[str, dict[str, float]] | None
    """Title of a run → block → its error on the truth's input."""
    subject: Subject | None = None
    """The model, where there are weights."""
    gradients: tuple[GradientRow, ...] | None = None
    """In the order of the backward pass; ``None`` where they were not asked for."""


@dataclass(frozen=True)
class Runs:
    """The sides of a comparison, one where only a capture is wanted."""

    endpoints: tuple[Endpoint, ...]
    dtype: Dtype
    reading: Mapping[str, Any]
    """Arguments of :func:`conversion.load`: format, model, weights_key."""

    @classmethod
    def of(cls, a: str, b: str | None, *, only_a: bool, dtype: Dtype, reading: Mapping[str, Any]) -> Runs:
        """The sides that two texts name, such as ``jax:PATH``; without ``b``, weights run by PyTorch and by JAX.

        Args:
            a: the reference.
            b: what is measured; ``None`` for the same weights in JAX.
            only_a: run the reference alone.
            dtype: of our own models.
            reading: arguments of :func:`conversion.load`.

        Raises:
            VitportError: without ``b`` for anything but weights run by PyTorch; where PyTorch is missing.
        """
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
            require_torch("vitport compare")
        return cls(endpoints, dtype, reading)

    def findings(
        self,
        *,
        image: str | None = None,
        seed: int = 0,
        image_size: int | tuple[int, int] | None = None,
        explained: bool = False,
        teacher_forced: bool = False,
        gradients: bool = False,
    ) -> Findings:
        """Load, run and measure both sides in one call; :meth:`images` and :meth:`measure` say what is done."""
        checkpoints = self.load(image_size)
        images, _ = self.images(checkpoints, image, seed)
        captured = self.run(checkpoints, images)
        found = self.measure(captured, checkpoints, explained=explained, teacher_forced=teacher_forced)
        return replace(found, gradients=self.gradients(checkpoints, images)) if gradients else found

    def load(self, image_size: int | tuple[int, int] | None) -> list[Checkpoint | None]:
        """The weights of each side, fitted to the size of a capture's images where there is one."""
        for endpoint in self.endpoints:
            if endpoint.kind == "capture" and image_size is None:
                height, width = load_capture(Path(endpoint.path)).images.shape[1:3]
                image_size = (height, width)
        own = [at for at in self.endpoints if at.kind != "capture" and not at.borrows]
        weights = {at.path: self._read(at.path, image_size) for at in own}
        lent = weights[own[0].path] if own else None
        for endpoint in self.endpoints:
            if endpoint.borrows and lent is None:
                raise VitportError(f"{endpoint.title} is a name without weights: give weights as the other side.")
        return [lent if at.borrows else weights.get(at.path) for at in self.endpoints]

    def images(self, checkpoints: list[Checkpoint | None], image: str | None, seed: int) -> tuple[np.ndarray, str]:
        """(B, H, W, C), preprocessed, and what they are, in words."""
        import conversion

        for endpoint in self.endpoints:
            if endpoint.kind == "capture":
                return load_capture(Path(endpoint.path)).images, f"the images of {endpoint.path}"
        checkpoint = next(entry for entry in checkpoints if entry is not None)
        if image is not None:
            return conversion.load_picture(image, checkpoint.preprocessing)[None], image
        shape = (1, *checkpoint.config.image_size, checkpoint.config.in_channels)
        numbers = np.random.default_rng(seed).standard_normal(shape, np.float32)
        return numbers, f"standard normal numbers (seed {seed})"

    def run(self, checkpoints: list[Checkpoint | None], images: np.ndarray) -> list[Capture]:
        """Each side's activations."""
        pairs, model = zip(self.endpoints, checkpoints, strict=True), self.reading.get("model")
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
        from vit_parity.report import Extras

        known = self._known(checkpoints)
        if not known:
            return None
        images = found.comparison.a.images
        ours = [pair for pair in known if pair[0].kind in ("torch", "jax")]
        dtypes: tuple[Dtype, ...] = ("float32", "bfloat16", "float16")
        others = [run_endpoint(*ours[-1], images, dtype) for dtype in dtypes if ours and dtype != self.dtype]
        checkpoint = known[0][1]
        hashes = {endpoint.path: entry.provenance.sha256 for endpoint, entry in known}
        causes = found.explanations or ()
        return Extras(checkpoint.config, checkpoint.preprocessing, found.subject, others, causes, hashes)

    def measure(
        self,
        captured: list[Capture],
        checkpoints: list[Checkpoint | None],
        *,
        explained: bool,
        teacher_forced: bool,
    ) -> Findings:
        """Compare, and where asked for name causes, and measure each block on the truth's own input."""
        from vit_parity.explain import explain
        from vit_parity.hypotheses import Origin
        from vit_parity.replay import Subject, float64_params
        from vit_parity.truth import truth_of

        known = self._known(checkpoints)
        if not known:
            if explained or teacher_forced:
                raise VitportError("Two captures alone cannot be explained: give weights for A or B.")
            return Findings(compare_captures(*captured), None, None)
        require_torch("vitport compare")
        (endpoint, checkpoint), images = known[0], captured[0].images
        truth = truth_of(checkpoint, images)
        subject = Subject(checkpoint.config, float64_params(checkpoint.params), images)
        comparison = compare_captures(captured[0], captured[1], truth=truth, subject=subject)
        explanations, errors = None, None
        if explained:
            origin = Origin(checkpoint.preprocessing, self._read(endpoint.path))
            explanations = tuple(cause for run in captured for cause in explain(run, subject, origin))
        if teacher_forced:
            own = [(endpoint, entry) for endpoint, entry in known if endpoint.kind in ("torch", "jax")]
            errors = {endpoint.title: local_errors(endpoint, entry, truth, self.dtype) for endpoint, entry in own}
        return Findings(comparison, explanations, errors, subject)

    def _read(self, path: str, image_size: int | tuple[int, int] | None = None) -> Checkpoint:
        import conversion

        return conversion.prepare(None, weights=conversion.load(path, **self.reading), image_size=image_size)

    def _known(self, checkpoints: list[Checkpoint | None]) -> list[tuple[Endpoint, Checkpoint]]:
        """The sides that have weights of their own."""
        sides = zip(self.endpoints, checkpoints, strict=True)
        return [(endpoint, entry) for endpoint, entry in sides if entry is not None and not endpoint.borrows]
