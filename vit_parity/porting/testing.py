"""``assert_parity`` for your own tests: what rounding explains passes, all else fails with its place and cause."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from vit_parity.capture_file import load_capture, save_capture
from vit_parity.porting.capture import capture
from vit_parity.porting.compare import compare
from vit_parity.porting.findings import Porting
from vit_parity.porting.masks import Masks
from vit_parity.porting.pairs import Pair
from vit_spec import VitportError

_REPORTS = "parity-reports"


def assert_parity(
    a: Any,
    b: Any,
    inputs: Any = None,
    pairs: str | Path | Iterable[Pair | str] | None = None,
    *,
    inputs_b: Any = None,
    gradients: bool = False,
    loss: Callable[[Any], Any] | None = None,
    loss_b: Callable[[Any], Any] | None = None,
    masks: Masks | bool = False,
    report: str | Path | None = None,
) -> Porting:
    """Fail unless rounding explains every difference of B from A.

    >>> def test_port():
    ...     vitport.assert_parity(torch_model, flax_model, inputs=x)

    There is no tolerance to choose: what rounding can amount to is measured at each stage.

    Args:
        a: the reference, as of :func:`vit_parity.porting.compare`.
        b: the port.
        inputs: of both.
        pairs: which stages belong together; drafted by default.
        inputs_b: B's inputs, if they differ.
        gradients: those of all parameters, inputs and stages must agree too, as of
            :func:`vit_parity.porting.compare`.
        loss: the same.
        loss_b: the same.
        masks: the same.
        report: where to write the HTML report of a failure; by default ``parity-reports/`` and the test's name.

    Returns:
        What was found.

    Raises:
        AssertionError: with the layer, the cause where it is known, and the path of the report.
        VitportError: if a model cannot run, or nothing belongs together.
    """
    asked = {"pairs": pairs, "gradients": gradients, "loss": loss, "loss_b": loss_b, "masks": masks}
    found = compare(a, b, inputs, inputs_b=inputs_b, **asked)
    if found.equal:
        return found
    path = Path(report) if report is not None else _report_of_test()
    path.parent.mkdir(parents=True, exist_ok=True)
    found.write_report(path)
    raise AssertionError(f"{found.b.title} is no port of {found.a.title}.\n{found.conclusion}\nReport: {path}")


def assert_golden(model: Any, inputs: Any, path: str | Path) -> None:
    """Fail unless a model still computes what it did when a golden file was written; the first call writes it.

    >>> def test_model_is_unchanged():
    ...     vitport.assert_golden(model, x, "tests/golden/model.npz")

    The file is a capture (:func:`vit_parity.porting.capture.capture`), with the versions that it was made by. Set
    ``VITPORT_UPDATE_GOLDEN=1`` to write it anew.

    Args:
        model: of any framework, as of :func:`vit_parity.porting.capture.capture`.
        inputs: the same.
        path: a ``.npz`` or ``.safetensors`` file.

    Raises:
        AssertionError: with the first stage that is apart, and the versions then and now.
        VitportError: if the file is no capture.
    """
    path = Path(path)
    now = capture(model, inputs)
    if not path.exists() or os.environ.get("VITPORT_UPDATE_GOLDEN") == "1":
        path.parent.mkdir(parents=True, exist_ok=True)
        save_capture(now, path)
        return
    before = load_capture(path)
    if before.images.shape != now.images.shape or not np.array_equal(before.images, now.images):
        raise VitportError(f"{path} was made from other inputs: give the same ones, or remove the file.")
    gone = [name for name in before.activations if name not in now.activations]
    common = [Pair(name, name) for name in before.activations if name in now.activations]
    found = compare(before, now, pairs=common)
    if not found.equal or gone:
        told = found.conclusion if not found.equal else f"{gone[0]} is not computed any more"
        raise AssertionError(
            f"{now.title} is not what {path} holds.\n{told}\n"
            f"Then: {json.dumps(before.facts)}\nNow: {json.dumps(now.facts)}\n"
            "Set VITPORT_UPDATE_GOLDEN=1 to write the file anew."
        )


def _report_of_test() -> Path:
    """A file named after the test that runs, as pytest tells it."""
    test = os.environ.get("PYTEST_CURRENT_TEST", "parity").rpartition(" ")[0] or "parity"
    return Path(_REPORTS) / f"{re.sub(r'[^A-Za-z0-9.]+', '_', test.rpartition('::')[2]).strip('_')}.html"
