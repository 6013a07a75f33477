"""The one exception that the packages raise for a caller's mistake."""

from collections.abc import Sequence

from vit_spec.printable import printable


class VitportError(ValueError):
    """Bad input. The message says in one sentence what is wrong, what was expected, and what to do.

    The command line prints it and exits with status 2. Every other exception is a defect of vitport and keeps its
    traceback. What a message quotes of a file or path is :func:`vit_spec.printable.printable`: the message is one line.
    """

    def __init__(self, message: object) -> None:
        super().__init__(printable(message))


class UnstatedError(VitportError):
    """Facts about weights are stated nowhere, and are never guessed."""

    def __init__(self, message: str, fields: Sequence[str]) -> None:
        super().__init__(message)
        self.fields = tuple(fields)
        """The config fields that have to be stated."""


class UnfitError(VitportError):
    """What was asked for does not fit, and neither do its alternatives: a sentence, and a line for each of them."""

    def __init__(self, message: str, others: Sequence[str]) -> None:
        super().__init__(message)
        self.lines = (printable(message), *map(printable, others))
        self.args = ("\n  ".join(self.lines),)
