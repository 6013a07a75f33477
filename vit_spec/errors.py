"""The one exception that the packages raise for a caller's mistake."""


class VitportError(ValueError):
    """Bad input. The message says in one sentence what is wrong, what was expected, and what to do.

    The command line prints it and exits with status 2. Every other exception is a defect of vitport and keeps its
    traceback.
    """
