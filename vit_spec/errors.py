"""The one exception that the packages raise for a caller's mistake."""

from vit_spec.printable import printable


class VitportError(ValueError):
    """Bad input. The message says in one sentence what is wrong, what was expected, and what to do.

    The command line prints it and exits with status 2. Every other exception is a defect of vitport and keeps its
    traceback. What a message quotes of a file or path is :func:`vit_spec.printable.printable`: the message is one line.
    """

    def __init__(self, message: object) -> None:
        super().__init__(printable(message))
