"""The user's own code, named ``MODULE:FUNCTION``. Running it is their choice."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from conversion.containers.file_checks import first_line
from vit_parity.porting.capture import is_linen_pair
from vit_parity.porting.kept_steps import read
from vit_spec import VitportError


def own_model(named: str, option: str) -> tuple[Any, Any]:
    """Import a function, call it, and take the model and the inputs that it returns.

    Args:
        named: ``MODULE:FUNCTION``, found in the current folder or installed. The function takes nothing, and returns a
            model, or a model and its inputs. The path of a capture, a digest or an ``.onnx`` file is taken as it is.
        option: of the command, for errors.

    Returns:
        The model, and its inputs or ``None``.

    Raises:
        VitportError: if there is no such function, or it fails.
    """
    if named.endswith((".npz", ".safetensors")):
        return read(Path(named)), None
    if named.endswith(".onnx"):
        return named, None
    module, colon, function = named.partition(":")
    if not (module and colon and function):
        raise VitportError(f"{option} {named} must be MODULE:FUNCTION, such as my_model:load, or a capture.")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        made = getattr(importlib.import_module(module), function)()
    except (Exception, SystemExit) as error:  # the user's own code may raise anything, or end the program
        raise VitportError(f"{option} {named} fails ({type(error).__name__}: {first_line(error)}).") from error
    if isinstance(made, tuple) and len(made) == 2 and not is_linen_pair(made):
        return made
    return made, None
