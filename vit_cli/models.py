"""``vitport models``: the registered names."""

from __future__ import annotations

from typing import Annotated

import tyro

from vit_cli.reading import Json
from vit_cli.terminal import print_table, write_json
from vit_spec import VitportError, count_parameters, forward_flops, list_models


def models(
    pattern: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PATTERN")] = "*",
    *,
    as_json: Json = False,
) -> None:
    """List the named models with their sizes and costs.

    Args:
        pattern: part of a name, or a shell pattern such as 'vit_*_patch16_*'.
        as_json: Print JSON, with parameters and floating-point operations as whole numbers.
    """
    found = list_models(pattern)
    if not found:
        raise VitportError(f"No model's name matches {pattern!r}: `vitport models` lists them all.")
    if as_json:
        write_json(
            [
                {
                    "name": model.name,
                    "image_size": model.config.image_size,
                    "patch_size": model.config.patch_size,
                    "parameters": count_parameters(model.config),
                    "flops": forward_flops(model.config),
                }
                for model in found
            ]
        )
        return
    print_table(
        ("name", "image (pixels)", "patch", "parameters (M)", "GFLOPs (2 per multiply-add)"),
        [
            (
                model.name,
                "x".join(map(str, model.config.image_size)),
                str(model.config.patch_size),
                f"{count_parameters(model.config) / 1e6:.2f}",
                f"{forward_flops(model.config) / 1e9:.2f}",
            )
            for model in found
        ],
    )
