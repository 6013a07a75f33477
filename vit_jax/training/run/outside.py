"""Where a run may write, so that it never reads what it wrote."""

from __future__ import annotations

from pathlib import Path, PurePath, PurePosixPath

from conversion.hub import PREFIX
from vit_jax.training.data.source import kind_of_file, kind_of_folder
from vit_jax.training.data.sources.bucket import Bucket
from vit_jax.training.data.sources.folders import Folder, FolderInBucket, FolderOnDisk
from vit_jax.training.data.sources.image_folder import split_folder
from vit_jax.training.recipe.data import Data
from vit_spec import VitportError
from vit_spec.address import in_store


def check_outside(workdir: str, data: Data) -> None:
    """
    Raises:
        VitportError: where the work directory is a folder of the data, or lies among their class folders: a run that is
            resumed would take its charts for images of another class.
    """
    place = _absolute(workdir)
    for path in dict.fromkeys(it for it in (data.path, data.validation) if it):
        if path == "digits" or path.startswith(PREFIX) or in_store(path) != in_store(workdir):
            continue
        root = _absolute(path)
        among = root in place.parents and data.labels is None and _is_class(path, place.relative_to(root))
        if place == root or among:
            raise VitportError(
                f"{workdir} lies among the images in {path}, and a run that is resumed would read what it wrote there: "
                "choose a work directory outside."
            )


def _absolute(path: str) -> PurePath:
    return PurePosixPath(path) if in_store(path) else Path(path).resolve()


def _is_class(path: str, below: PurePath) -> bool:
    """Whether this folder is, or lies in, a class folder of the data."""
    root = _class_folders(path)
    if root is None:
        return False
    parts = [split_folder(root, "train"), split_folder(root, "validation")]
    return any(f"{root}/{below.as_posix()}/".startswith(f"{part}/") for part in parts if part is not None)


def _class_folders(path: str) -> Folder | None:
    if not in_store(path):
        return FolderOnDisk(Path(path)) if kind_of_folder(Path(path)) == "folder" else None
    bucket = Bucket(path)
    kinds = {kind_of_file(PurePosixPath(name).name) for name in bucket.names} - {None}
    return FolderInBucket(bucket.path, bucket.names) if kinds <= {"folder"} else None
