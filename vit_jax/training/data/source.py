"""Opens labelled images, however they are stored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath

from conversion.hub import PREFIX, dataset
from vit_jax.training.data.record import NoDataError, Record, Source, Split
from vit_jax.training.data.sources.array_record import open_array_records
from vit_jax.training.data.sources.arrow import open_tables
from vit_jax.training.data.sources.bucket import Bucket
from vit_jax.training.data.sources.digits import open_digits
from vit_jax.training.data.sources.files import read_text, walk
from vit_jax.training.data.sources.folders import FolderInBucket, FolderOnDisk
from vit_jax.training.data.sources.holdout import are_several, held_out
from vit_jax.training.data.sources.idx import is_idx, open_idx
from vit_jax.training.data.sources.image_folder import SUFFIXES, open_folder
from vit_jax.training.data.sources.kept import NOT_KEPT, Keep
from vit_jax.training.data.sources.label_table import open_table
from vit_jax.training.data.sources.labels import listed_classes
from vit_jax.training.data.sources.npz import Arrays, open_npz
from vit_jax.training.data.sources.records_in_bucket import open_records_in_bucket
from vit_jax.training.data.sources.row_groups import open_row_groups
from vit_jax.training.data.sources.shards import check_complete, expanded, split_files
from vit_jax.training.data.sources.span import InSpan, Span
from vit_jax.training.data.sources.tar import open_tar, open_tar_in_bucket
from vit_jax.training.recipe.data import Data
from vit_spec import VitportError
from vit_spec.address import in_store

__all__ = ["Record", "Source", "Split", "Table", "open_source", "open_sources"]


def open_sources(options: Data) -> tuple[Source, Source | None]:
    """The training images, and the validation images if there are any.

    Raises:
        VitportError: as :func:`open_source` does, and if the two have different classes.
    """
    columns = (options.image_column, options.label_column)
    table = Table(options.labels, *columns, separator=options.label_separator) if options.labels else None
    keep = Keep(options.cache, options.cache_limit)
    if keep.folder is not None and not any(map(in_store, (options.path, options.validation))):
        raise VitportError(
            f"data.cache={options.cache} is for data in a bucket, and {options.path} is not: leave it out."
        )
    train = open_source(options.path, "train", table=table, span=options.range, keep=keep)
    if train is None:
        raise VitportError(f"{options.path} has no training images: give another path.")
    path = options.validation or options.path
    own = table if options.validation is None else None
    if options.validation_labels is not None:
        own = Table(options.validation_labels, *columns, "validation", options.label_separator)
    if own is not None:
        own = replace(own, several=are_several(train))
    validation = open_source(path, "validation", train.classes, own, options.range, keep)
    if validation is None and options.validation is not None and own is None:
        validation = open_source(path, "train", train.classes, span=options.range, keep=keep)
    if options.holdout:
        if validation is not None:
            raise VitportError(
                f"data.holdout={options.holdout:g} holds images out where there are none for validation, and "
                f"{validation.name} has {len(validation)}: leave it out."
            )
        return held_out(train, options.holdout, options.holdout_seed)
    if validation is not None and validation.classes != train.classes:
        raise VitportError(_difference(train, validation))
    if validation is not None and are_several(validation) != are_several(train):
        many, one = (train, validation) if are_several(train) else (validation, train)
        raise VitportError(
            f"{many.name} has images of several labels, and {one.name} has one for each: give both the same kind."
        )
    return train, validation


@dataclass(frozen=True)
class Table:
    """A table of labels, and its columns where they are named."""

    path: str
    image_column: str | None = None
    label_column: str | None = None
    rows_of: Split | None = None
    """The split of all rows, where no column tells; ``None`` is what the table's name says, else training."""
    separator: str | None = None
    """Between the labels of an image, where it may have several."""
    several: bool = False
    """Whether an image may have several labels, whatever the rows show."""


def open_source(
    path: str,
    split: Split,
    classes: tuple[str, ...] | None = None,
    table: Table | None = None,
    span: Span | None = None,
    keep: Keep = NOT_KEPT,
) -> Source | None:
    """Opens one split of a data set.

    Args:
        path: as in :class:`~vit_jax.training.recipe.data.Data`.
        classes: names for numeric labels; validation images take them from the training images.
        table: of the labels of images in one folder.
        span: of images of more than 8 bits, which are refused without it.
        keep: where images of a bucket stay that were read.

    Returns:
        ``None`` where the path does not have the split.

    Raises:
        VitportError: if the path does not exist, has no known format, has no image, or has a single class.
    """
    try:
        source = _open(path, split, classes, keep) if table is None else _labelled(path, split, classes, table, keep)
        if isinstance(source, Arrays):
            source.check(span is not None)
    except VitportError:
        raise
    except Exception as error:  # hostile files make the libraries that read them raise anything
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise VitportError(f"{path} cannot be read ({reason}): check that it is complete and readable.") from error
    if source is None:
        return None
    if not len(source):
        raise VitportError(f"{source.name} has no images: give another path.")
    if len(source.classes) < 2:
        raise VitportError(
            f"{source.name} must have 2 classes or more; got {', '.join(source.classes) or 'none'}: give other data."
        )
    return source if span is None else InSpan(source, span)


_READERS: dict[str, Callable[[str, Sequence[Path], tuple[str, ...] | None], Source]] = {
    "tar": open_tar,
    "parquet": open_tables,
    "arrow": open_tables,
    "array_record": open_array_records,
}


_IN_PLACE = ("tar", "parquet", "array_record")
"""Kinds of files that are read where they are in a bucket."""


def _open(path: str, split: Split, classes: tuple[str, ...] | None, keep: Keep) -> Source | None:
    if path == "digits":
        return open_digits(split)
    if in_store(path):
        bucket = Bucket(path)
        kinds = [kind for name in bucket.names if (kind := kind_of_file(name.rpartition("/")[2]))]
        kind = next((kind for kind in _IN_PLACE if kind in kinds), None)
        if kind is not None:
            files = _files_in(bucket, kind, split)
            return _in_bucket(kind, bucket, files, split, classes, keep) if files else None
        if bucket.is_folder and kinds[:1] in ([], ["folder"]):
            return open_folder(FolderInBucket(bucket.path, bucket.names), split, keep)
        path = str(bucket.copied(keep.limit))
    root = dataset(path) if path.startswith(PREFIX) else Path(path)
    if root.is_dir():
        kind = kind_of_folder(root)
        if kind == "folder":
            return open_folder(FolderOnDisk(root), split)
        if kind == "npz":
            return open_npz(root, split, classes or listed_classes(root))
        if kind == "idx":
            return open_idx(root, split, classes or listed_classes(root))
        files = sorted(file for file in root.rglob("*") if kind_of_file(file.name) == kind)
        files = split_files(root, files, split)
        check_complete(files)
        return _READERS[kind](f"{path} ({split})", files, classes or listed_classes(root)) if files else None
    if root.is_file() and kind_of_file(root.name) == "npz":
        return open_npz(root, split, classes or listed_classes(root.parent))
    files = expanded(path)
    kinds = {kind_of_file(file.name) or "unknown" for file in files}
    if not files:
        raise NoDataError(f"{path} does not exist: give the path of a data set, or digits for a small one.")
    if len(kinds) > 1 or not kinds <= _READERS.keys():
        raise VitportError(f"{path} has no known format: give a folder, or files of one kind; see docs/data.md.")
    return _READERS[kinds.pop()](path, files, classes or listed_classes(files[0].parent)) if split == "train" else None


def _files_in(bucket: Bucket, kind: str, split: Split) -> list[str]:
    """Names of the objects of this kind that hold the split, in the order of a disk."""
    files = sorted(PurePosixPath(name) for name in bucket.names if kind_of_file(name.rpartition("/")[2]) == kind)
    if bucket.is_folder:
        files = split_files(PurePosixPath(), files, split)
    elif split != "train":
        return []
    check_complete(files, frozenset(map(PurePosixPath, bucket.names)).__contains__)
    return [str(file) for file in files]


def _in_bucket(
    kind: str, bucket: Bucket, files: Sequence[str], split: Split, classes: tuple[str, ...] | None, keep: Keep
) -> Source:
    """What is read in place out of files of many images."""
    name = f"{bucket.path} ({split})" if bucket.is_folder else bucket.path
    classes = classes or bucket.classes()
    if kind == "parquet":
        return open_row_groups(name, bucket.objects, files, classes)
    if kind == "array_record":
        return open_records_in_bucket(name, bucket, files, classes, keep)
    return open_tar_in_bucket(name, bucket.objects, files, classes, keep)


def _labelled(path: str, split: Split, classes: tuple[str, ...] | None, table: Table, keep: Keep) -> Source | None:
    if in_store(path):
        bucket = Bucket(path)
        is_folder, has_table = bucket.is_folder, table.path in bucket.names
        root, listed = FolderInBucket(bucket.path, bucket.names), bucket.classes
    else:
        is_folder, has_table = Path(path).is_dir(), Path(path, table.path).is_file()
        root, listed = FolderOnDisk(Path(path)), partial(listed_classes, Path(path))
    if not is_folder:
        raise VitportError(
            f"{path} is not a folder of images, which data.labels needs: give the folder that holds them."
        )
    file = root.reader(()).name(table.path) if has_table else table.path
    try:
        content = read_text(file)
    except OSError as error:
        raise VitportError(f"{file} cannot be read as a table of labels ({error}): give a CSV file.") from error
    return open_table(
        root, file, content, split, classes or listed(), table.image_column, table.label_column, table.rows_of,
        table.separator, table.several, keep,
    )  # fmt: skip


def kind_of_folder(root: Path) -> str:
    """The kind of the first file that has one, so that not all files of a large image folder are listed."""
    names = (name for _, files in walk(root) for name in files)
    return next((kind for name in names if (kind := kind_of_file(name))), "folder")


def kind_of_file(name: str) -> str | None:
    """What a file holds, by its name; ``None`` for others than images and shards."""
    name = name.lower()
    if name.startswith("."):
        return None
    if is_idx(name):
        return "idx"
    if ".array_record" in name or name.endswith(".arrayrecord"):
        return "array_record"
    if name.endswith(SUFFIXES):
        return "folder"
    if name.startswith("cache-"):  # left by datasets beside a table that was mapped or filtered
        return None
    return next((kind for kind in ("tar", "parquet", "arrow", "npz") if name.endswith(f".{kind}")), None)


def _difference(train: Source, validation: Source) -> str:
    missing = sorted(set(train.classes) - set(validation.classes))
    extra = sorted(set(validation.classes) - set(train.classes))
    faults = [f"lacks {_some(missing)}"] * bool(missing) + [f"also has {_some(extra)}"] * bool(extra)
    fault = " and ".join(faults or ["has them in another order"])
    return (
        f"{validation.name} does not have the classes of {train.name}: it {fault}, so labels would not mean the same. "
        "Give both the same classes."
    )


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
