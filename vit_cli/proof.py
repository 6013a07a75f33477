"""Verify a conversion: write the certificate, print the table and the verdict."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vit_cli.terminal import json_text, print_table, say, short_number, spinner

if TYPE_CHECKING:
    from conversion import Conversion
    from vit_parity import Certificate


def prove(done: Conversion, certificate: str, against: str | None) -> int:
    """Verify a conversion, write its certificate, and print the result.

    Args:
        done: what was converted.
        certificate: file or object for the JSON.
        against: ``MODULE:FUNCTION`` of the source's own PyTorch module.

    Returns:
        0, or 1 where some block differs by more than rounding.
    """
    from conversion.containers.model_card import write_parity
    from conversion.destination import write_file
    from vit_parity import verify_conversion

    with spinner("Verifying"):
        proof = verify_conversion(done, against=against)
    write_file(certificate, f"{json_text(proof.to_dict())}\n".encode())
    rows = _rows(proof)
    if isinstance(done.destination, Path) and done.destination.is_dir():  # a bucket's objects are whole already
        write_parity(done.destination, proof.verdict, rows)
    _print(proof, rows)
    say(f"certificate {certificate}")
    return 0 if proof.passed else 1


def _rows(proof: Certificate) -> list[list[str]]:
    rows: list[list[str]] = []
    for it in proof.checks:
        if it.stages:
            worst = it.first_failure or max(it.stages, key=lambda stage: stage.relative / stage.bound)
            numbers = [short_number(worst.relative), short_number(worst.bound)]
            rows.append([it.actual, it.image, worst.name, *numbers, _outcome(it.first_failure is None, it.judged)])
    return rows


def _print(proof: Certificate, rows: list[list[str]]) -> None:
    print_table(["compared with the source", "<image", "<where", "of largest", "rounding", "<"], rows)
    say(f"{'verified' if proof.passed else 'not verified'}: {proof.verdict}")


def _outcome(passed: bool, judged: bool) -> str:
    if passed:
        return "ok"
    return "TOO FAR" if judged else "beyond rounding, not judged"
