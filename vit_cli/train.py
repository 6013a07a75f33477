"""``vitport train``, as far as it costs nothing to import: going on with a run, and short names of options."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import tyro

from vit_spec import VitportError

SHORT = {
    "--model": "--model.name",
    "--weights": "--model.weights",
    "--data": "--data.path",
    "--validation": "--data.validation",
}
"""What is given most often, by a shorter name."""


def train(*, workdir: Annotated[str, tyro.conf.arg(metavar="FOLDER")]) -> int:
    """Train a model in JAX, on one device or on a pod.

    This is the command without options, as `vitport --help` lists it; :func:`run_train` takes them.

    Args:
        workdir: Gets configuration, log and checkpoints; a run that is there goes on.
    """
    return run_train(["--workdir", workdir])


def run_train(args: Sequence[str]) -> int:
    """The command itself; its options are fields of a dataclass that takes JAX to import.

    Args:
        args: after the word ``train``.

    Raises:
        VitportError: if they make no run, or the run fails by a mistake of the user's.
    """
    from vit_cli.train_command import parsed

    return parsed(longer(args))()


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
    result: list[str] = []
    for part in text.split(","):
        axis, _, size = part.partition("=")
        option = f"--mesh.{axis}={size}"
        once = not any(other.startswith(f"--mesh.{axis}=") for other in result)
        if axis not in ("data", "fsdp", "tensor") or not size.removeprefix("-").isdigit() or not once:
            raise VitportError(
                f"--mesh {text} is no mesh: give each axis its devices once, as in data=2,fsdp=2,tensor=2."
            )
        result.append(option)
    return result
