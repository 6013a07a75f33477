"""What a zarr array says about itself, checked before TensorStore acts on it: some numbers make its C++ abort.

https://zarr-specs.readthedocs.io/en/latest/specs.html, versions 2 (``.zarray``) and 3 (``zarr.json``).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from conversion.identify.quantised import quantised

FILES = {"zarr": ".zarray", "zarr3": "zarr.json"}
"""TensorStore's driver → the file of metadata in an array's folder."""
_MOST_BYTES, _DEEPEST = 1 << 20, 12
_LARGEST = 1 << 40
"""Elements along an axis, and any other number in the metadata."""
_DTYPE = re.compile(r"bool|bfloat16|(float|complex|u?int)(8|16|32|64|128)|[<>|]([fiuc](1|2|4|8|16)|b1)")
_CODECS = ("bytes", "zstd", "gzip", "blosc", "crc32c", "transpose", "sharding_indexed")
_COMPRESSORS = ("zstd", "blosc", "gzip", "zlib", "bz2")


def check_zarr(name: str, content: bytes, real: int) -> bool:
    """Refuse metadata that no writer of weights makes.

    Args:
        name: of the array, for messages.
        content: of the file of metadata.
        real: bytes of the whole checkpoint: each chunk takes one at least.

    Returns:
        Whether Blosc packs the chunks, which :func:`check_blosc` has then to look at.

    Raises:
        ValueError: in words, where a part of it is out of bounds or unknown.
    """
    if len(content) > _MOST_BYTES:
        raise ValueError(f"{name} has {len(content)} bytes of metadata")
    told = json.loads(content)
    _check_numbers(name, told, 0)
    if not isinstance(told, Mapping) or told.get("zarr_format") not in (2, 3):
        raise ValueError(f"{name} has metadata of no known version")
    is_third = told["zarr_format"] == 3
    shape = _sizes(name, told.get("shape"), 0)
    chunks = _sizes(name, _third_chunks(name, told) if is_third else told.get("chunks"), 1)
    if len(shape) != len(chunks):
        raise ValueError(f"{name} has shape {shape} and chunks of {chunks}")
    if any(chunk > max(1, axis) for chunk, axis in zip(chunks, shape, strict=True)):  # memory for nothing
        raise ValueError(f"{name} has chunks of {chunks}, larger than its shape {shape}")
    count = math.prod(-(-axis // chunk) for axis, chunk in zip(shape, chunks, strict=True))
    if count > real:
        raise ValueError(f"{name} says it lies in {count} chunks, more than {real} bytes can hold")
    _check_dtype(name, told.get("data_type" if is_third else "dtype"))
    if is_third:
        _check_codecs(name, told.get("codecs"), len(shape))
        return told["codecs"][-1]["name"] == "blosc"
    _check_second(name, told)
    return told["compressor"] is not None and told["compressor"]["id"] == "blosc"


def check_blosc(name: str, chunk: bytes, size: int) -> None:
    """Refuse a chunk whose head, by which memory is taken, claims another size than the chunk has unpacked.

    https://github.com/Blosc/c-blosc/blob/main/README_CHUNK_FORMAT.rst. TensorStore unpacks chunks of the other
    compressors into as many bytes as they must have, and no further.

    Raises:
        ValueError: with both sizes.
    """
    claimed = int.from_bytes(chunk[4:8], "little")
    if claimed != size:
        raise ValueError(f"a chunk of {name} claims {claimed} bytes, but must have {size}")


def _third_chunks(name: str, told: Mapping[str, Any]) -> Any:
    grid = told.get("chunk_grid")
    if told.get("node_type") != "array" or not isinstance(grid, Mapping) or grid.get("name") != "regular":
        raise ValueError(f"{name} is not an array of regular chunks")
    return _configuration(name, grid).get("chunk_shape")


def _check_second(name: str, told: Mapping[str, Any]) -> None:
    compressor = told.get("compressor")
    known = compressor is None or (isinstance(compressor, Mapping) and compressor.get("id") in _COMPRESSORS)
    if not known or told.get("filters") not in (None, []) or told.get("order") not in ("C", "F"):
        raise ValueError(f"{name} is packed in an unknown way")


def _check_codecs(name: str, codecs: Any, rank: int, within: bool = False) -> None:
    if not isinstance(codecs, list) or not 1 <= len(codecs) <= 8:
        raise ValueError(f"{name} is packed in an unknown way")
    for at, codec in enumerate(codecs):
        if not isinstance(codec, Mapping) or codec.get("name") not in _CODECS:
            raise ValueError(f"{name} is packed in an unknown way")
        if codec["name"] == "sharding_indexed":
            inner = _configuration(name, codec)
            if len(_sizes(name, inner.get("chunk_shape"), 1)) != rank:
                raise ValueError(f"{name} has shards of another rank than its own")
            _check_codecs(name, inner.get("codecs"), rank, within=True)
            _check_codecs(name, inner.get("index_codecs"), rank, within=True)
        if codec["name"] == "blosc" and (within or at < len(codecs) - 1):
            raise ValueError(f"{name} has chunks of Blosc within others")


def _configuration(name: str, part: Mapping[str, Any]) -> Mapping[str, Any]:
    found = part.get("configuration")
    if not isinstance(found, Mapping):
        raise ValueError(f"{name} has metadata without a configuration")
    return found


def _check_dtype(name: str, dtype: Any) -> None:
    if str(dtype).startswith(("float8", "float4", "float6", "int4", "uint4", "int2", "uint2")):
        raise quantised(name, str(dtype))
    if not isinstance(dtype, str) or _DTYPE.fullmatch(dtype) is None:
        raise ValueError(f"{name} is of {dtype!r}, which is not a type of number")


def _check_numbers(name: str, value: Any, depth: int) -> None:
    if depth > _DEEPEST:
        raise ValueError(f"{name} has metadata that nests {depth} deep")
    if isinstance(value, int) and abs(value) > _LARGEST:
        raise ValueError(f"{name} has the number {value} in its metadata")
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    for part in parts:
        _check_numbers(name, part, depth + 1)


def _sizes(name: str, value: Any, least: int) -> tuple[int, ...]:
    are_sizes = isinstance(value, list) and len(value) <= 32 and all(
        isinstance(axis, int) and not isinstance(axis, bool) and least <= axis <= _LARGEST for axis in value
    )  # fmt: skip
    if not are_sizes:
        raise ValueError(f"{name} has {value!r} for sizes")
    return tuple(value)
