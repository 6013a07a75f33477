"""``tf.train.Example``, the record that TensorFlow Datasets writes, without TensorFlow.

Its protocol buffer (tensorflow/core/example/feature.proto) nests Example.features = 1, Features.feature = 1 (a map of
key = 1 and value = 2), Feature.bytes_list = 1 or int64_list = 3, and value = 1 in both lists.
"""

from __future__ import annotations

from collections.abc import Iterator

from vit_jax.training.data.sources.protobuf import fields, varint


def features(record: bytes) -> dict[str, list[bytes] | list[int]]:
    """The features of bytes and integers by name; those of floats are ignored.

    Raises:
        ValueError: if the record is not such a message.
    """
    found: dict[str, list[bytes] | list[int]] = {}
    for table in _nested(record, 1):
        for entry in _nested(table, 1):
            name = b"".join(_nested(entry, 1)).decode()
            for feature in _nested(entry, 2):
                for values in _nested(feature, 1):
                    found[name] = list(_nested(values, 1))
                for values in _nested(feature, 3):
                    found[name] = list(_integers(values))
    return found


def _nested(message: bytes, number: int) -> Iterator[bytes]:
    for at, value in fields(message):
        if at == number and isinstance(value, bytes):
            yield value


def _integers(message: bytes) -> Iterator[int]:
    """Packed, as newer writers do, or one by one; negative numbers are encoded as numbers above 2^63."""
    for at, value in fields(message):
        if at == 1 and isinstance(value, bytes):
            place = 0
            while place < len(value):
                number, place = varint(value, place)
                yield number - (number >> 63 << 64)
        elif at == 1 and isinstance(value, int):
            yield value - (value >> 63 << 64)
