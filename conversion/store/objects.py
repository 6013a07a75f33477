"""The objects below an address, by tensorstore, which orbax writes checkpoints with."""

from __future__ import annotations

import ctypes
import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache, partial
from typing import Any
from urllib.parse import unquote, urlsplit

from vit_spec import VitportError

_DRIVERS = {"gs": "gcs", "s3": "s3"}
_RETRIES = {"max_retries": 8, "initial_delay": "500ms", "max_delay": "8s"}
"""Of a request that fails in a way that may pass: half a minute in all."""
_SILENCE = {
    "TENSORSTORE_CURL_CONNECT_TIMEOUT_SECONDS": "10",
    "TENSORSTORE_CURL_LOW_SPEED_TIME_SECONDS": "15",
    "TENSORSTORE_CURL_LOW_SPEED_LIMIT_BYTES": "1",
}
"""What makes a request fail that gets no answer, for which tensorstore would wait forever."""
_CUT = re.compile(r"Failed to parse|Expected Content-Range|was not satisfied by response")
"""What tensorstore says of an answer that ends within its head, which it does not ask for again."""
_PAUSES = (0.1, 0.5, 2.0)
"""Seconds before each further attempt at such a request."""
_NAMELESS = bytes(9)
"""Version of what was read, where the answer's head ends before it. Its content may lack anything."""
_AT_ONCE = 64
"""Requests that are under way together."""
LARGE = 1 << 23
"""Bytes from which on an object is read in parts of this size, 16 of them together, so that memory is bounded."""
_TOGETHER = 1 << 28
"""Bytes that are written together, or one object."""
_PROBE = "vitport-probe"
"""An object that is not there; without permission to list, a store refuses to say so."""
_ACCESS = {
    "gs": "log in (gcloud auth application-default login) with an account that may read and write objects there "
    "(roles/storage.objectUser)",
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile, of an account that may get, put, delete and "
    "list objects there",
}


class StoreError(VitportError):
    """A store that cannot be reached, or refuses."""


class Objects:
    """Those whose names begin with an address and a slash. Names are relative to it. Opening asks for nothing.

    Every method raises :class:`StoreError` for what retrying does not cure.

    Args:
        address: ``gs://BUCKET/NAME`` or ``s3://BUCKET/NAME``; the name may be empty.
    """

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        parts = urlsplit(self.address)
        self._scheme, self._bucket = parts.scheme.lower(), parts.netloc
        if self._scheme not in _DRIVERS or not self._bucket:
            raise VitportError(f"{address} is no address of objects: give gs://BUCKET/NAME or s3://BUCKET/NAME.")
        prefix = self.address.partition("://")[2].partition("/")[2]
        with self._telling():
            self._objects: Any = _opened(self._scheme, self._bucket, f"{prefix}/" if prefix else "")

    @classmethod
    def holding(cls, address: str) -> tuple[Objects, str]:
        """The objects beside the one of this address, and its name among them."""
        above, _, name = address.rstrip("/").rpartition("/")
        return cls(above), name

    def __getstate__(self) -> dict[str, Any]:
        return {"address": self.address}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__init__(state["address"])

    def names(self, below: str = "") -> list[str]:
        """All of them, or those whose names begin so, sorted by their bytes."""
        import tensorstore as ts

        within = ts.KvStore.KeyRange(below, f"{below[:-1]}{chr(ord(below[-1]) + 1)}") if below else None
        with self._telling():
            found = sorted(name.decode() for name in _answer(lambda: self._objects.list(within)))
            if not found:  # tensorstore takes a refusal for the end of a list, but not that of an object
                _answer(lambda: self._objects.read(_PROBE))
            return found

    def read(self, name: str) -> bytes | None:
        """The content; ``None`` if there is no such object."""
        return next(self.read_all([(name, None)]))

    def read_all(self, wanted: Iterable[tuple[str, slice | None]]) -> Iterator[bytes | None]:
        """The contents of objects, or of ranges of their bytes, in this order; many requests are under way at once."""
        yield from self._each(
            lambda it: self._objects.read(it[0]) if it[1] is None else self._objects.read(it[0], byte_range=it[1]),
            wanted,
            lambda found: found.value if found.state == "value" else None,
        )

    def holds(self, name: str, at: int) -> bool:
        """Whether there is an object that has this byte."""
        try:
            return next(self.read_all([(name, slice(at, at + 1))])) is not None
        except StoreError as error:
            if "OUT_OF_RANGE" in str(error) or "416" in str(error):
                return False
            raise

    def size(self, name: str) -> int:
        """The bytes of an object, which tensorstore does not tell: by looking where its last one is."""
        low, high = 0, 1 << 16  # bytes that are there, and that may not be
        while self.holds(name, high - 1):
            low, high = high, high * 4
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.holds(name, middle - 1) else (low, middle)
        return low

    def read_parts(self, name: str) -> Iterator[bytes]:
        """The content of a large object, all of the version that it has now."""
        (version,), size = self.versions([name]), self.size(name)

        def take(found: Any) -> bytes:
            if found.state != "value" or found.stamp.generation != version:
                raise StoreError(f"{self.address}/{name} was changed while it was read: run again.")
            return found.value

        yield from self._each(
            lambda begin: self._objects.read(name, byte_range=slice(begin, min(begin + LARGE, size))),
            range(0, size, LARGE),
            take,
            at_once=16,
        )

    def versions(self, names: Sequence[str]) -> list[bytes | None]:
        """What changes with each write of an object; ``None`` where there is none."""
        return list(
            self._each(
                lambda name: self._objects.read(name, byte_range=slice(0, 0)),
                names,
                lambda found: found.stamp.generation if found.state == "value" else None,
            )
        )

    def read_version(self, name: str) -> tuple[bytes | None, bytes]:
        """The content, and the version that :meth:`write_if` takes; both also where there is no such object."""
        with self._telling():
            found = _answer(lambda: self._objects.read(name))
        return (found.value if found.state == "value" else None), found.stamp.generation

    def write(self, name: str, content: bytes) -> None:
        """Writes an object, which readers see whole or not at all."""
        with self._telling():
            _answer(lambda: self._objects.write(name, content))

    def write_all(self, contents: Iterable[tuple[str, Callable[[], bytes]]]) -> None:
        """Writes objects, several at a time; each content is made when its turn comes."""
        held: list[tuple[str, bytes]] = []
        for name, make in contents:
            held.append((name, make()))
            if len(held) == _AT_ONCE or sum(len(content) for _, content in held) >= _TOGETHER:
                self._write(held)
                held = []
        self._write(held)

    def _write(self, contents: Sequence[tuple[str, bytes]]) -> None:
        for _ in self._each(lambda it: self._objects.write(*it), contents, lambda _: None):
            pass

    def write_if(self, name: str, content: bytes | None, version: bytes) -> bytes | None:
        """Writes, or with ``None`` deletes, an object that still has this version.

        Args:
            content: like no other writer's, since a write whose answer is lost is tried again, and then finds itself.

        Returns:
            The new version; ``None`` if another process wrote it meanwhile, and then nothing is changed.
        """
        with self._telling():
            new = _answer(lambda: self._objects.write(name, content, if_equal=version)).generation
        if new:
            return new
        found, new = self.read_version(name)
        return new if found == content else None

    def delete(self, names: Iterable[str]) -> None:
        """Deletes objects; one that is not there is no error."""
        for _ in self._each(lambda name: self._objects.write(name, None), names, lambda _: None):
            pass

    def _each(
        self, ask: Callable[[Any], Any], items: Iterable[Any], take: Callable[[Any], Any], at_once: int = _AT_ONCE
    ) -> Iterator[Any]:
        waiting: deque[tuple[Callable[[], Any], Any]] = deque()
        try:
            for item in items:
                with self._telling():
                    waiting.append((partial(ask, item), ask(item)))
                if len(waiting) >= at_once:
                    yield self._taken(*waiting.popleft(), take)
            while waiting:
                yield self._taken(*waiting.popleft(), take)
        except (Exception, GeneratorExit):
            for _, asked in waiting:  # so that no request outlives what asked for it
                asked.exception()
            raise

    def _taken(self, ask: Callable[[], Any], asked: Any, take: Callable[[Any], Any]) -> Any:
        with self._telling():
            return take(_answer(ask, asked))

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except (ValueError, RuntimeError, NotImplementedError) as error:
            raise StoreError(self._sentence(" ".join(str(error).split()))) from error

    def _sentence(self, reason: str) -> str:
        """tensorstore's errors begin with a status code of Abseil's."""
        code = re.match(r"[A-Z_]+(?=:)", reason)
        kind, short = (code[0] if code else ""), unquote(reason[:200])
        bucket = f"{self._scheme}://{self._bucket}"
        if kind in ("PERMISSION_DENIED", "UNAUTHENTICATED") or "credentials" in reason.lower():
            return f"{self.address} is refused ({short}): {_ACCESS[self._scheme]}."
        if kind == "NOT_FOUND":
            return f"The bucket {bucket} does not exist, or this account does not see it: make it, or correct its name."
        if "retry attempts failed" in reason or kind in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED"):
            return f"{bucket} cannot be reached ({short}): check the network, and run again."
        return f"{self.address} cannot be read or written ({short}): check the name, and run again."


def _answer(ask: Callable[[], Any], asked: Any = None) -> Any:
    """What a request gives, asked again where the answer was cut."""
    for pause in (*_PAUSES, None):
        try:
            found = (ask() if asked is None else asked).result()
            if getattr(found, "state", "") != "value" or found.stamp.generation != _NAMELESS:
                return found
            reason = ValueError("UNAVAILABLE: answers end within their head")
        except (ValueError, RuntimeError) as error:
            if _CUT.search(str(error)) is None:
                raise
            reason = error
        if pause is None:
            raise reason
        asked = None
        time.sleep(pause)
    raise AssertionError("the last attempt returns or raises")


def _opened(scheme: str, bucket: str, prefix: str) -> Any:
    try:
        import tensorstore as ts
    except ImportError as error:
        raise VitportError("Reading buckets needs tensorstore: pip install tensorstore.") from error
    for name, value in _SILENCE.items():  # read with the first request
        os.environ.setdefault(name, value)
    _limit_arenas()
    spec: dict[str, Any] = {"driver": _DRIVERS[scheme], "bucket": bucket, "path": prefix}
    if scheme == "s3":
        spec |= _s3()
    return ts.KvStore.open(spec, context=_context()).result()


@cache
def _limit_arenas() -> None:
    """glibc gives the many threads of requests up to eight arenas a core, and what was freed in one stays there."""
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(-8, max(4, os.cpu_count() or 1))  # M_ARENA_MAX


def _s3() -> dict[str, Any]:
    """What AWS' own tools take from the environment, and tensorstore does not."""
    found: dict[str, Any] = {}
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if endpoint:  # a store of another vendor
        found |= {"endpoint": endpoint, "aws_region": region or "us-east-1"}
    elif region:
        found["aws_region"] = region
    if "AWS_ACCESS_KEY_ID" in os.environ:  # else it looks for files first, and complains that there are none
        found["aws_credentials"] = {"type": "environment"}
    return found


@cache
def _context() -> Any:
    import tensorstore as ts

    return ts.Context({"gcs_request_retries": _RETRIES, "s3_request_retries": _RETRIES})
