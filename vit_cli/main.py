"""The command ``vitport``: one subcommand a file, whose options are its function's arguments.

Nothing but tyro, vit_spec and the options of training, dataclasses all, is imported here, so that ``vitport --help``
answers at once; each subcommand imports what it runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import Any

import tyro

from vit_cli.addresses import check_addresses
from vit_cli.compare import compare
from vit_cli.convert import convert
from vit_cli.demo import demo
from vit_cli.doctor import doctor
from vit_cli.evaluate import evaluate
from vit_cli.export import export
from vit_cli.inspect import inspect
from vit_cli.models import models
from vit_cli.parsing import parsed
from vit_cli.predict import predict
from vit_cli.rollout import rollout
from vit_cli.steps import steps
from vit_cli.sweep import sweep
from vit_cli.terminal import say_error
from vit_cli.train import long_names, train, train_with_defaults
from vit_spec import UnfitError, VitportError

SUBCOMMANDS: dict[str, Callable[..., int | None]] = {
    "demo": demo,
    "models": models,
    "inspect": inspect,
    "convert": convert,
    "export": export,
    "compare": compare,
    "sweep": sweep,
    "steps": steps,
    "predict": predict,
    "train": train,
    "evaluate": evaluate,
    "rollout": rollout,
    "doctor": doctor,
}
_NO_MEMORY = "RESOURCE_EXHAUSTED"
"""What XLA's errors of every device begin with where memory is short."""
DESCRIPTION = (
    "Vision Transformers in PyTorch and JAX, and their weights in every format.\n\n"
    "`vitport COMMAND --help` explains a command, `vitport --version` is the version."
)


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        args: arguments after the command's name; ``None`` takes those of the process.

    Returns:
        What the subcommand returns, 0 where it returns nothing; 2 after a mistake of the user's, reported on stderr in
        one line, or in one for each alternative; 130 after Ctrl-C.
    """
    args = sys.argv[1:] if args is None else list(args)
    try:
        if args == ["--version"]:
            sys.stdout.write(f"vitport {_version()}\n")
            return 0
        check_addresses(args)
        subcommands = dict(SUBCOMMANDS)
        if args[:1] == ["train"]:  # the only one whose arguments decide its defaults
            args = ["train", *long_names(args[1:])]
            subcommands["train"] = train_with_defaults(args[1:])
        status = parsed(
            lambda: tyro.extras.subcommand_cli_from_dict(
                {name: _later(run, listed=args[:1] != [name]) for name, run in subcommands.items()},
                prog="vitport",
                description=DESCRIPTION,
                args=args,
                # A run's options are the defaults when it goes on: the flags that began it must still be taken.
                config=() if args[:1] == ["train"] else (tyro.conf.FlagCreatePairsOff,),
            ),
            command=" ".join(["vitport", *(name for name in args[:1] if name in SUBCOMMANDS)]),
        )()
    except VitportError as error:
        first, *others = error.lines if isinstance(error, UnfitError) else (str(error),)
        say_error(first)
        for line in others:
            sys.stderr.write(f"  {line}\n")
        return 2
    except KeyboardInterrupt:
        say_error("stopped.")
        return 130
    except BrokenPipeError:  # the reader of our output left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if not (isinstance(error, MemoryError) or _NO_MEMORY in str(error)):
            raise
        reason = " ".join(str(error).split())[:200]
        say_error(f"This needs more memory than there is ({reason}): choose smaller sizes or batches.")
        return 2
    return status or 0


def _version() -> str:
    from importlib.metadata import version

    return version("vitport")


def _later(run: Callable[..., int | None], *, listed: bool) -> Callable[..., Callable[[], int | None]]:
    """A function with the same arguments that returns the call without making it.

    The list of commands shows the whole docstring, so that of a ``listed`` command is cut to its first line.
    """

    @wraps(run)
    def later(*args: Any, **options: Any) -> Callable[[], int | None]:
        return partial(run, *args, **options)

    if listed:
        later.__doc__ = (run.__doc__ or "").partition("\n")[0]
    return later


def entry() -> int:
    """The command as a process of its own, for scripts that were installed with earlier versions."""
    from vit_cli.__main__ import entry as run

    return run()


if __name__ == "__main__":
    sys.exit(entry())
