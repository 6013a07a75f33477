"""The arguments that timm's train.py keeps in its checkpoints, as the config.json that timm would write beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vit_spec import list_models

_SIGNATURE = ("model", "model_kwargs", "gp", "num_classes")
"""Arguments that no other trainer has together."""


def described(arguments: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the arguments say about the model, in the words of timm's config.json.

    ``--gp`` and ``--in-chans`` are what ``create_model`` gets beside ``--model-kwargs``; the image size of the data
    (``--img-size``) does not reach the model.

    Returns:
        ``None`` for another program's arguments, and for a model that is not registered.
    """
    if not all(name in arguments for name in _SIGNATURE) or not isinstance(arguments["model"], str):
        return None
    name = arguments["model"].removeprefix("timm/").partition(".")[0]
    if name not in {model.name for model in list_models()}:
        return None
    keywords = arguments["model_kwargs"]
    told = dict(keywords) if isinstance(keywords, Mapping) else {}
    passed = {"in_chans": arguments.get("in_chans"), "global_pool": arguments["gp"]}
    told = {key: value for key, value in passed.items() if value is not None} | told
    return {"architecture": name, "model_args": told, "pretrained_cfg": {}}
