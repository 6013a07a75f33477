"""Which arguments may be addresses of objects, ``gs://`` or ``s3://``; all others are paths of this machine."""

from __future__ import annotations

from collections.abc import Sequence

from vit_spec.address import check_local, in_store

_ANYWHERE = {
    "--weights", "--model.weights", "--teacher.weights", "--config", "--base", "--rename", "--workdir", "--path",
    "--data", "--data.path", "--validation", "--data.validation", "--data.labels", "--data.validation-labels",
    "--labels", "--real", "--predictions", "--certificate", "--compilation-cache",
}  # fmt: skip
_OPERANDS = ("inspect", "convert", "compare", "evaluate", "predict", "export", "steps", "rollout", "sweep")
"""Commands that take weights and images as operands."""


def check_addresses(args: Sequence[str]) -> None:
    """
    Raises:
        VitportError: for an address where it can only be a path.
    """
    option = ""
    for at, arg in enumerate(args):
        name, _, value = arg.partition("=")
        if arg.startswith("--"):
            option, given, may = name, value, name in _ANYWHERE
        else:  # the value of an option, or an operand
            given, may = arg, option in _ANYWHERE or (args[0] in _OPERANDS and args[at - 1] != option)
        if not (may and in_store(given)):
            check_local(given)
