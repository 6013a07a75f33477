"""The one exception that the packages raise for a mistake of the caller's."""


class VitportError(ValueError):
    """Bad input, told in one sentence: what is wrong, where, and what to do.

    The command line prints the sentence and exits with status 2; every other exception is a defect of
    vitport itself and keeps its traceback.
    """
