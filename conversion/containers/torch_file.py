"""PyTorch's ``torch.save`` files, read without running any code that a pickle asks for."""

from __future__ import annotations

import argparse
import functools
import json
import pickle
import sys
import warnings
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from conversion.checkpoint import Checkpoint
from conversion.config_json import timm_training
from conversion.containers.file_checks import check_size, json_object
from conversion.containers.output import Output
from conversion.containers.pickles import remedy
from conversion.containers.stored_zip import StoredZip
from conversion.containers.torch_entries import chosen_entry
from conversion.containers.torch_pickle import state_dict_pickle
from conversion.containers.wall import wall, walled
from conversion.containers.zip_member import checked_offset
from conversion.identify.quantised import quantised
from conversion.source import TRAIN_PY, Source
from conversion.tensors.contiguous import contiguous
from conversion.tensors.table import BFLOAT16, Tensor, TensorTable
from vit_spec import VitportError

if TYPE_CHECKING:
    import torch

_LEGACY_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""The pickled number with which files older than PyTorch 1.6 begin, after two bytes of protocol."""
_FIRST_MEMBERS = (b"/data.pkl", b"/data/0", b"/version", b"/byteorder")
"""Endings of the name of an archive's first member."""
_ALIGNMENT = 64
"""Bytes; PyTorch maps a file's tensors into memory in place."""
_OPTIONS = ("hyper_parameters", "hparams", "cfg", "config", "args")
"""Keys of a trainer's options beside the weights."""
_OWN_KEY = "vitport"
"""Key of our own JSON in the ``_metadata`` that PyTorch stores with a state_dict, keyed by submodule."""


def recognises(path: Path) -> bool:
    """A zip archive with a ``data.pkl`` in it, an old-style file, or any bare pickle, which ``read`` refuses."""
    with path.open("rb") as file:
        start = file.read(16)
    if start.startswith(b"PK"):
        try:
            with zipfile.ZipFile(path) as archive:
                return any(name.endswith("data.pkl") for name in archive.namelist())
        except Exception:  # damaged: ``read`` says so
            return True
    return start[2:].startswith(_LEGACY_MAGIC) or is_bare_pickle(path)


def begins_as_one(path: Path) -> bool:
    """What ``torch.save`` wrote, if only its beginning is left: a zip archive whose first member is one of its own."""
    with path.open("rb") as file:
        start = file.read(30)
        name = file.read(int.from_bytes(start[26:28], "little"))
    return start[2:].startswith(_LEGACY_MAGIC) or (start.startswith(b"PK") and name.endswith(_FIRST_MEMBERS))


def is_bare_pickle(path: Path) -> bool:
    """A pickle that ``torch.save`` did not write."""
    with path.open("rb") as file:
        start = file.read(16)
    return start[:1] == b"\x80" and start[1:2] in b"\2\3\4\5" and not start[2:].startswith(_LEGACY_MAGIC)


@walled("PyTorch file")
def read(path: Path, weights_key: str | None = None) -> Source:
    """Open a file's state_dict; wrappers such as ``{"model": …}`` are removed, one in another too."""
    try:
        import torch
    except ImportError as error:
        raise VitportError(f"Reading {path} needs PyTorch: install the extra, pip install 'vitport[torch]'.") from error
    infos = _infos(path)
    records = None if infos is None else Counter(info.file_size for info in infos)
    check = functools.cache(functools.partial(_check_checksums, path, infos or []))
    try:
        # Training scripts store their options beside the weights: in a Namespace, or in a dict of yacs, whose code is
        # not run. The warning is about pickles that are refused anyway.
        allowed: list[Any] = [argparse.Namespace, (OrderedDict, "yacs.config.CfgNode")]
        with torch.serialization.safe_globals(allowed), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=records is not None)
    except pickle.UnpicklingError as error:
        raise VitportError(
            f"{path} is a pickle that holds more than tensors, and opening it could run code: {remedy(path)}."
        ) from error
    tensors, under, notes = chosen_entry(path, content, weights_key)
    _check_quantised(tensors)
    strange = [str(name) for name, value in tensors.items() if not isinstance(value, torch.Tensor)]
    for name, value in tensors.items():
        if isinstance(value, torch.Tensor) and not _is_plain(value):
            raise VitportError(
                f"{path} holds {name} as a {str(value.layout).removeprefix('torch.')} tensor on the device "
                f"{value.device}: save dense tensors on the CPU."
            )
    if strange:
        notes += (f"set aside because they are not tensors: {', '.join(strange)}",)
    found = {str(name): value for name, value in tensors.items() if isinstance(value, torch.Tensor)}
    _check_claims(path, list(found.values()), records)
    table = TensorTable({name: _tensor(value, check) for name, value in found.items()})
    metadata = getattr(tensors, "_metadata", None)
    own = metadata.get(_OWN_KEY) if isinstance(metadata, Mapping) else None
    own = own and json_object(path, own)
    beside = _options(content)
    told = timm_training.described(beside) if own is None else None
    source = Source(path, "PyTorch file", table, (path,), notes=notes, own=own, under=under, options=beside)
    return source if told is None else replace(source, config_json=told, described_by=TRAIN_PY)


def write(path: Path, table: TensorTable, checkpoint: Checkpoint, progress: Callable[[str], None]) -> None:
    """Write a state_dict as ``torch.save`` does, with our record in its metadata, which load_state_dict ignores.

    Tensors are written one by one. The pickle comes last, not first as in ``torch.save``, so that the source is hashed
    meanwhile.
    """
    specs = {name: table.spec(name) for name in table}
    with ThreadPoolExecutor(1) as hasher, Output(path) as file:
        digest = hasher.submit(lambda: checkpoint.provenance.sha256)
        archive = StoredZip(file)
        for at, (name, array) in enumerate(table.in_turn(table)):
            progress(name)
            data = contiguous(array).reshape(-1).view(np.uint8).data
            archive.add(f"archive/data/{at}", (data,), alignment=_ALIGNMENT)
        metadata = {_OWN_KEY: json.dumps(checkpoint.record(digest.result()))}
        archive.add("archive/data.pkl", (state_dict_pickle(specs, metadata),), alignment=_ALIGNMENT)
        archive.add("archive/byteorder", (sys.byteorder.encode(),), alignment=_ALIGNMENT)
        archive.add("archive/version", (b"3\n",), alignment=_ALIGNMENT)
        archive.finish()


def _options(content: Any) -> Mapping[str, Any]:
    """The options that a training script or Lightning keeps beside the weights; empty where there are none."""
    found: dict[str, Any] = {}
    for key in _OPTIONS if isinstance(content, Mapping) else ():
        part = content.get(key)
        part = vars(part) if isinstance(part, argparse.Namespace) else part
        found |= {str(name): value for name, value in part.items()} if isinstance(part, Mapping) else {}
    return found


def _check_quantised(tensors: Mapping[Any, Any]) -> None:
    """Refuse the dtypes of ``torch.quantization`` and the float8 ones, which numpy does not have."""
    import torch

    for name, value in tensors.items():
        packed = str(name).endswith("_packed_params") and not isinstance(value, torch.Tensor)
        parts = value if packed and isinstance(value, tuple) else (value,)
        for part in parts:
            kind = str(part.dtype).removeprefix("torch.") if isinstance(part, torch.Tensor) else ""
            if kind.startswith(("qint", "quint", "float8", "float4", "int4", "uint4")):
                raise quantised(str(name), kind)


def _is_plain(value: Any) -> bool:
    """Whether a value is a tensor whose numbers are all in the file: not sparse, nested or on the meta device."""
    import torch

    plain = isinstance(value, torch.Tensor) and value.layout == torch.strided and not value.is_nested
    return plain and value.device.type == "cpu"


def _infos(path: Path) -> list[zipfile.ZipInfo] | None:
    """The records of a zip archive; ``None`` for a file older than PyTorch 1.6.

    Raises:
        VitportError: for a TorchScript program, and for an archive that PyTorch would read wrongly.
    """
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
    if any(info.filename.endswith("constants.pkl") for info in infos):
        raise VitportError(
            f"{path} is a TorchScript archive, a program with its weights: save the weights alone, with "
            "torch.save(torch.jit.load(…).state_dict(), …)."
        )
    check_size(path, sum(info.file_size for info in infos), path.stat().st_size)
    if any(info.compress_type != zipfile.ZIP_STORED for info in infos):
        raise VitportError(
            f"{path} is a compressed archive, which PyTorch would read wrongly: save it with torch.save as it is, or "
            "unzip it and zip it again without compression (zip -0)."
        )
    names = [info.filename for info in infos]
    if twice := sorted({name for name in names if names.count(name) > 1} if len(names) > len(set(names)) else ()):
        raise _damaged(path, f"it holds {', '.join(twice)} more than once")
    return infos


def _check_checksums(path: Path, infos: list[zipfile.ZipInfo]) -> None:
    """Compare every record with its checksum, which PyTorch does not read.

    All are 0 where ``torch.serialization.set_crc32_options(False)`` switched them off.

    Raises:
        VitportError: for the first record that differs.
    """
    for info in infos if any(info.CRC for info in infos) else ():
        with wall(path, f"is damaged at {info.filename}"):
            checked_offset(path, info)


def _check_claims(path: Path, tensors: list[torch.Tensor], records: Counter[int] | None) -> None:
    """Compare the pickle's claims with the file: strides of zero let a few bytes claim any size."""
    check_size(path, sum(tensor.numel() * tensor.itemsize for tensor in tensors), path.stat().st_size)
    storages = {(storage := tensor.untyped_storage()).data_ptr(): storage.nbytes() for tensor in tensors}
    # PyTorch takes a storage's length from the pickle; if it is too long, it reads on into the next storage.
    if records is not None and Counter(size for size in storages.values() if size) - records:
        raise _damaged(path, "its pickle and its archive disagree about sizes")


def _damaged(path: Path, what: str) -> VitportError:
    return VitportError(f"{path} is not a complete PyTorch file ({what}): fetch or save it again.")


def _tensor(tensor: torch.Tensor, check: Callable[[], None]) -> Tensor:
    """A tensor whose first reading checks the file, so that opening it stays cheap."""
    import torch

    if tensor.dtype == torch.bfloat16:
        dtype, plain = BFLOAT16, tensor.detach().view(torch.uint16)
    else:
        dtype, plain = np.dtype(str(tensor.dtype).removeprefix("torch.")), tensor.detach()

    def read() -> np.ndarray:
        check()
        array = plain.contiguous().numpy()
        return array.view(dtype)

    return Tensor(tuple(tensor.shape), dtype, read)
