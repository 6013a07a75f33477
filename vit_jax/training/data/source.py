"""Pictures with labels by number, whatever they lie in."""

from __future__ import annotations

from pathlib import Path

from vit_jax.training.data.options import Data
from vit_jax.training.data.record import Record, Source, Split
from vit_jax.training.data.sources import digits, idx, image_folder
from vit_spec import VitportError

__all__ = ["Record", "Source", "Split", "open_source", "open_sources"]


def open_sources(options: Data) -> tuple[Source, Source | None]:
    """The training pictures, and the validation pictures if there are any.

    Raises:
        VitportError: as :func:`open_source` does, and if the two do not have the same classes.
    """
    train = open_source(options.path, "train")
    if train is None:
        raise VitportError(f"{options.path} has no training pictures: give a path that has.")
    if options.validation is None:
        validation = open_source(options.path, "validation")
    else:
        validation = open_source(options.validation, "validation") or open_source(options.validation, "train")
    if validation is not None and validation.classes != train.classes:
        raise VitportError(_difference(train, validation))
    return train, validation


def open_source(path: str, split: Split) -> Source | None:
    """Whatever ``path`` is: see :class:`~vit_jax.training.data.options.Data`.

    Returns:
        ``None`` where the path sets no validation pictures apart.

    Raises:
        VitportError: if nothing is there, nothing that is known, no picture, or a single class.
    """
    source = _open(path, split)
    if source is None:
        return None
    if not len(source):
        raise VitportError(f"{source.name} has no picture in it: give a path that has.")
    if len(source.classes) < 2:
        raise VitportError(f"{source.name} has no two classes, so there is nothing to learn: give two or more.")
    return source


def _open(path: str, split: Split) -> Source | None:
    if path == "digits":
        return digits.open_digits(split)
    at = Path(path)
    if not at.exists():
        raise VitportError(f"{path} does not exist: give the path of a data set, or digits for a small one.")
    if at.is_dir() and idx.is_idx(at):
        return idx.open_idx(at, split)
    if at.is_dir():
        return image_folder.open_folder(at, split)
    raise VitportError(f"{path} is no data set that is known: give a folder of class folders, or of IDX files.")


def _difference(train: Source, validation: Source) -> str:
    missing = sorted(set(train.classes) - set(validation.classes))
    extra = sorted(set(validation.classes) - set(train.classes))
    what = [f"lacks {_some(missing)}"] * bool(missing) + [f"has besides {_some(extra)}"] * bool(extra)
    told = " and ".join(what or ["has them in another order"])
    return (
        f"{validation.name} does not have the classes of {train.name}: it {told}, "
        "so labels would not mean the same; give both the same classes."
    )


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
