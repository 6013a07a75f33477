"""YAML that people write by hand: rules of renaming, configurations of training. JSON is YAML too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from conversion.containers.file_checks import read_regular
from vit_spec import VitportError

_LARGEST = 1 << 20
"""Bytes of a file that are parsed."""


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML or JSON file.

    Raises:
        VitportError: without pyyaml; for a file that cannot be read, is too large, or holds no mapping; for a name that
            stands twice, of which the parser keeps the last; for aliases, since a few bytes of them can stand for
            gigabytes; and for tags, which would name Python classes.
    """
    try:
        import yaml
    except ImportError as error:
        raise VitportError(f"Reading {path} needs pyyaml: pip install pyyaml.") from error

    class Plain(yaml.SafeLoader):
        def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
            if self.check_event(yaml.AliasEvent):
                raise VitportError(f"{path} uses a YAML alias (*name): write the values out instead.")
            return super().compose_node(parent, index)

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            twice = next((name for at, name in enumerate(names) if name in names[:at]), None)
            if twice is not None:
                raise VitportError(f"{path} has {twice} twice: keep one.")
            return super().construct_mapping(node, deep)

    text = _text(path)
    try:
        values = yaml.load(text, Plain)
    except VitportError:
        raise
    except RecursionError as error:
        raise VitportError(f"{path} nests its values too deeply: correct it.") from error
    except (yaml.YAMLError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError) as error:
        raise VitportError(f"{path} is not valid YAML or JSON ({' '.join(str(error).split())}): correct it.") from error
    if not isinstance(values, dict):
        raise VitportError(f"{path} holds no names and values, such as `batch: 128`: give a YAML or JSON file.")
    return values


def _text(path: str | Path) -> str:
    try:
        return read_regular(Path(path), _LARGEST).decode("utf-8-sig")
    except VitportError:
        raise
    except OSError as error:
        raise VitportError(f"{path} cannot be read ({error.strerror}): give a YAML or JSON file.") from error
    except ValueError as error:  # bytes that are not text, in the file or in its path
        raise VitportError(f"{path} is not valid YAML or JSON ({error}): give a YAML or JSON file.") from error
