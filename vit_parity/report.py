"""A comparison as one self-contained HTML file: it needs no network, no server, no library."""

from __future__ import annotations

import base64
import html
import importlib.metadata
import importlib.resources
import io
import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from conversion.destination import write_file
from vit_parity.bound import MARGIN
from vit_parity.comparison import Comparison, Depth, Row
from vit_parity.points import covered_by_maps, patch_maps
from vit_parity.replay import ReplayedModel
from vit_spec import Config, Preprocessing
from vit_spec.printable import escaped_values, printable

if TYPE_CHECKING:
    from vit_parity.compare import Findings
    from vit_parity.explain import Explanation

_BINS = 34
"""0 ulp, then from each power of two up to 2**32 on."""


@dataclass(frozen=True)
class Extras:
    """What a report shows besides the comparison."""

    config: Config | None = None
    preprocessing: Preprocessing | None = None
    model: ReplayedModel | None = None
    others: Sequence[Depth] = ()
    """The same model and images in other dtypes, for the chart of errors by depth."""
    explanations: Sequence[Explanation] = ()
    hashes: Mapping[str, str] | None = None
    """File → SHA-256."""


def extras_of(found: Findings) -> Extras | None:
    """What a report of the findings shows besides the comparison; ``None`` for two captures."""
    known = found.runs.with_weights
    if not known:
        return None
    checkpoint = known[0][1]
    hashes = {endpoint.path: entry.provenance.sha256 for endpoint, entry in known}
    causes = found.explanations or ()
    return Extras(checkpoint.config, checkpoint.preprocessing, found.model, found.others, causes, hashes)


def write_report(comparison: Comparison, path: Path, extras: Extras | None = None) -> None:
    """Write the report.

    Raises:
        VitportError: if the file cannot be written.
    """
    write_file(path, report_html(comparison, extras or Extras()).encode())


def report_html(comparison: Comparison, extras: Extras) -> str:
    """The whole page."""
    template = (importlib.resources.files("vit_parity") / "assets" / "report.html").read_text(encoding="utf-8")
    text = json.dumps(escaped_values(_finite(report_data(comparison, extras))), allow_nan=False)
    page = template.replace("@DATA@", text.replace("<", "\\u003c"))  # so that no tag ends the script early
    return page.replace(
        "<title>vitport compare", f"<title>vitport compare {html.escape(printable(comparison.b.title))}"
    )


def report_data(comparison: Comparison, extras: Extras) -> dict[str, Any]:
    """The data of the page, as JSON values."""
    first = comparison.first_divergence
    if first is None:
        verdict = "Rounding explains every difference."
    else:
        told = f"{first.difference.relative:.1e}, where rounding explains {first.tolerance:.1e}"
        verdict = f"First divergence: {first.name} ({first.verdict_in_words}; {told})."
    return {
        "a": {"title": comparison.a.title, "facts": comparison.a.facts},
        "b": {"title": comparison.b.title, "facts": comparison.b.facts},
        "verdict": verdict,
        "first_divergence": None if first is None else first.name,
        "causes": [explanation.sentence for explanation in extras.explanations],
        "rows": [_row(at, row) for at, row in enumerate(comparison.rows)],
        "growth": growth_lines(comparison, extras),
        "heat": None if extras.config is None else _heat(comparison, extras.config, extras.preprocessing),
        "facts": _facts(comparison, extras),
    }


def _row(at: int, row: Row) -> dict[str, Any]:
    last = sum(row.histogram[_BINS - 1 :])
    return {
        "order": at,
        "name": row.name,
        "relative": row.difference.relative,
        "max_abs": row.difference.max_abs,
        "cosine": row.difference.cosine,
        "ulp_median": row.ulps.median,
        "ulp_p99": row.ulps.p99,
        "ulp_max": row.ulps.max,
        "beyond": row.beyond,
        "tolerance": row.tolerance,
        "error_a": row.error_a,
        "error_b": row.error_b,
        "verdict": row.verdict_in_words,
        "histogram": [*row.histogram[: _BINS - 1], *([last] if last else [])],
    }


def growth_lines(comparison: Comparison, extras: Extras) -> dict[str, Any]:
    """Lines over the stages of the model: errors of A, B and the other dtypes, and the bound of each dtype."""
    true = comparison.truth is not None
    rows = [row for row in comparison.rows if comparison.is_stage(row) and (not true or row.error_a is not None)]
    stages = [row.name for row in rows]
    if not true:
        lines = [_line("B against A", [row.difference.relative for row in rows], 0)]
        return {"stages": stages, "lines": [*lines, _line("bound", [row.tolerance for row in rows], 0, bound=True)]}
    runs = {
        f"A, {comparison.a.dtype.name}": Depth(
            comparison.a.dtype, {row.name: row.error_a for row in rows if row.error_a is not None},
            {row.name: row.bound_a for row in rows},
        ),
        f"B, {comparison.b.dtype.name}": Depth(
            comparison.b.dtype, {row.name: row.error_b for row in rows if row.error_b is not None},
            {row.name: row.bound_b for row in rows},
        ),
    }  # fmt: skip
    runs |= {run.dtype.name: run for run in extras.others}
    lines = [_line(name, [run.errors[at] for at in stages], at) for at, (name, run) in enumerate(runs.items())]
    drawn: set[str] = set()
    for at, run in enumerate(runs.values()):
        if extras.model is not None and run.dtype.name not in drawn:
            drawn.add(run.dtype.name)
            lines.append(_line(f"bound, {run.dtype.name}", [run.bounds[at] for at in stages], at, bound=True))
    return {"stages": stages, "lines": lines}


def _line(name: str, values: Sequence[float], colour: int, *, bound: bool = False) -> dict[str, Any]:
    return {"name": name, "values": list(values), "colour": colour, "bound": bound}


def _heat(comparison: Comparison, config: Config, preprocessing: Preprocessing | None) -> dict[str, Any]:
    """The first image, and each patch's relative difference after each block."""
    maps = {}
    covered = covered_by_maps(comparison.a.images, config)[0]
    for row in comparison.rows:
        found = None if row.by_token is None else patch_maps(row.by_token[None, :, None], config)
        if found is not None:  # (1, rows, columns, 1)
            maps[row.name] = [[float(f"{value:.3e}") for value in line] for line in found[0, :, :, 0]]
    return {"maps": maps, "image": _data_uri(covered, preprocessing)}


def _data_uri(image: np.ndarray, preprocessing: Preprocessing | None) -> str:
    """(H, W, C), preprocessed, as a PNG in a data URI."""
    from PIL import Image

    pixels = image.astype(np.float64)
    if preprocessing is not None and len(preprocessing.mean) == pixels.shape[-1]:
        pixels = pixels * np.array(preprocessing.std) + np.array(preprocessing.mean)
    pixels = (pixels.clip(0, 1) * 255).round().astype(np.uint8)
    pixels = pixels if pixels.shape[-1] == 3 else pixels[..., 0]
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _facts(comparison: Comparison, extras: Extras) -> list[tuple[str, str]]:
    facts = [("vitport", _version("vitport")), ("Python", platform.python_version()), ("machine", platform.platform())]
    facts += [(name, _version(name)) for name in ("torch", "jax", "flax", "numpy")]
    for letter, run in (("A", comparison.a), ("B", comparison.b)):
        facts.append((letter, f"{run.title}: {', '.join(f'{name} {value}' for name, value in run.facts.items())}"))
    facts += [(f"SHA-256 of {name}", value) for name, value in (extras.hashes or {}).items()]
    return [*facts, ("bound on rounding", f"with the margin c = {MARGIN:g}; see docs/comparing.md")]


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _finite(value: Any) -> Any:
    """NaN and infinity, which JSON lacks, become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    return [_finite(entry) for entry in value] if isinstance(value, (list, tuple)) else value
