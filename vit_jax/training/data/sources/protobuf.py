"""The encoding of protocol buffers (protobuf.dev/programming-guides/encoding), for messages of a few fields."""

from __future__ import annotations

from collections.abc import Iterator

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def fields(message: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Number and value of each field, in the order of the message.

    Raises:
        ValueError: if it is truncated, or no message.
    """
    place = 0
    while place < len(message):
        tag, place = varint(message, place)
        kind = tag & 7
        if kind == _VARINT:
            value, place = varint(message, place)
            yield tag >> 3, value
            continue
        if kind == _BYTES:
            size, place = varint(message, place)
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"wire type {kind} is unknown")
        if place + size > len(message):
            raise ValueError("the message is truncated")
        yield tag >> 3, message[place : place + size]
        place += size


def varint(message: bytes, place: int) -> tuple[int, int]:
    """The number at a place, and the place behind it; raises as :func:`fields` does."""
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(message):
            raise ValueError("the message is truncated")
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise ValueError("a number is too long")
