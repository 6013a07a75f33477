"""Servers that speak the protocols of Google's and Amazon's object stores, one of each in this process.

They live as long as the process, since tensorstore keeps an address that it once used; a test has a bucket of its own.

Google's is PyPI's ``gcp-storage-emulator``. It knows no conditions of writes and names no version of what it gives, as
the store itself does, so these are added here; and a share of its requests may fail, be cut, or take long. Amazon's is
moto's, which knows conditions.
"""

from __future__ import annotations

import io
import json
import logging
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from http.server import ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from urllib.request import Request, urlopen

import pytest

_NUMBERS = count()


class Store:
    """An empty bucket of a running server.

    Attributes:
        address: of the bucket.
        environment: variables by which processes find the server.
        faults: share of the requests that fail: half of them before they do anything, half after, their answer cut.
        delay: seconds before each answer.
        most_together: requests that were under way at the same time.
        asked: requests so far.
        held: set once :meth:`hold` stops.
        stopped: requests that wait for :meth:`free`.
    """

    def __init__(self, scheme: str, environment: dict[str, str], bucket: str | None = None) -> None:
        self.bucket = bucket or f"bucket-{next(_NUMBERS)}-of-tests"
        self.address, self.environment = f"{scheme}://{self.bucket}", environment
        self.faults, self.delay, self.asked, self.together, self.most_together = 0.0, 0.0, 0, 0, 0
        self.refused: str | None = None
        """A path that is answered with 403."""
        self.random = random.Random(0)
        self.cut: int | None = None
        """Bytes after which the next answer ends."""
        self.held, self.stopped = threading.Event(), 0
        self._left, self._token, self._begins = 0, "", ""
        self._turn = threading.Condition()

    def hold(self, after: int, writing: str = "", token: str = "x") -> None:
        """Answers so many requests more of some processes, and then none of theirs until :meth:`free`.

        Args:
            writing: only writes of objects whose names begin so are counted.
            token: the variable ``GOOGLE_AUTH_TOKEN_FOR_TESTING`` of the processes.
        """
        with self._turn:
            self._left, self._begins, self._token = after, writing, token
            if after == 0:
                self.held.set()

    def await_stopped(self, count: int, seconds: float = 60.0) -> bool:
        """Whether so many requests wait at the same time, at some moment within some seconds."""
        with self._turn:
            return self._turn.wait_for(lambda: self.stopped >= count, seconds)

    def free(self) -> None:
        """Answers again; returns when all that waited are answered, also to those who are dead."""
        with self._turn:
            self._left = 0
            self.held.clear()
            self._turn.notify_all()
            self._turn.wait_for(lambda: not self.stopped)

    @contextmanager
    def passing(self, token: str, method: str, name: str) -> Iterator[None]:
        """While a request is answered, which may have to wait for it."""
        with self._turn:
            stops = token == self._token and self.held.is_set()
            if (
                token == self._token
                and self._left
                and (not self._begins or (method == "POST" and name.startswith(self._begins)))
            ):
                self._left -= 1
                if not self._left:
                    self.held.set()
            if stops:
                self.stopped += 1
                self._turn.notify_all()
                self._turn.wait_for(lambda: not self.held.is_set())
        try:
            yield
        finally:
            if stops:
                with self._turn:
                    self.stopped -= 1
                    self._turn.notify_all()


@contextmanager
def google(bucket: str | None = None) -> Iterator[Store]:
    """A bucket of Google's, ``gs://``, of this name or of one that no other has."""
    from gcp_storage_emulator.handlers import buckets

    objects, stores, url = _google()
    store = Store(
        "gs",
        {"TENSORSTORE_GCS_HTTP_URL": url, "STORAGE_EMULATOR_HOST": url, "GOOGLE_AUTH_TOKEN_FOR_TESTING": "x"},
        bucket,
    )
    buckets.create_bucket(store.bucket, objects)
    stores[store.bucket] = store
    try:
        yield store
    finally:
        del stores[store.bucket]


@contextmanager
def amazon() -> Iterator[Store]:
    """A bucket of Amazon's, ``s3://``."""
    url = _amazon()
    store = Store("s3", {"AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"})
    urlopen(Request(f"{url}/{store.bucket}", method="PUT")).close()
    yield store


@cache
def _google() -> tuple[Any, dict[str, Store], str]:
    """The server's objects, its buckets by name, and its address."""
    from gcp_storage_emulator import server
    from gcp_storage_emulator.server import RequestHandler
    from gcp_storage_emulator.storage import Storage

    class Memory(Storage):
        def _write_config_to_file(self) -> None:
            """It would write the list of all objects again with each of them."""

    objects = Memory(use_memory_fs=True)
    stores: dict[str, Store] = {}
    read = server._read_data
    server._read_data = lambda *given: b"" if (found := read(*given)) is None else found  # an empty object is one too
    lock = threading.Lock()

    class Handler(RequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:  # noqa: N802
            self._answer(super().do_GET)

        def do_POST(self) -> None:  # noqa: N802
            self._answer(super().do_POST)

        def do_DELETE(self) -> None:  # noqa: N802
            self._answer(super().do_DELETE)

        def _answer(self, act: Any) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            store = stores.get(self._named()[0])
            if store is None:
                self.wfile.write(_error(404))
                self.close_connection = True
                return
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            with store.passing(token, self.command, self._named()[1]):
                self._answered(store, act, body)

        def _answered(self, store: Store, act: Any, body: bytes) -> None:
            with lock:
                store.asked += 1
                store.together += 1
                store.most_together = max(store.together, store.most_together)
                chance = store.random.random()
            if store.delay:
                time.sleep(store.delay)
            socket = self.wfile
            if chance < store.faults / 2:
                answer = _error(503)
            else:
                self.rfile, self.wfile = io.BytesIO(body), io.BytesIO()
                with lock:
                    answer = self._refusal(store) or self._told(act)
                if chance < store.faults:
                    answer = answer[: len(answer) // 2]
                answer, store.cut = answer[: store.cut], None
            with lock:
                store.together -= 1
            socket.write(answer)
            self.wfile = socket
            self.close_connection = True

        def _named(self) -> tuple[str, str, dict[str, list[str]]]:
            parts = urlsplit(self.path)
            query = parse_qs(parts.query)
            bucket = parts.path.partition("/b/")[2].partition("/")[0]
            return bucket, query["name"][0] if "name" in query else unquote(parts.path.partition("/o/")[2]), query

        def _version(self) -> str:
            bucket, name, _ = self._named()
            try:
                return objects.get_file_obj(bucket, name)["generation"]
            except Exception:  # the emulator's own kind of error
                return "0"

        def _refusal(self, store: Store) -> bytes | None:
            _, _, query = self._named()
            if store.refused is not None and store.refused in unquote(self.path):
                return _error(403)
            wanted = query.get("ifGenerationMatch")
            return _error(412) if wanted is not None and wanted[0] != self._version() else None

        def _told(self, act: Any) -> bytes:
            act()
            head, gap, content = self.wfile.getvalue().partition(b"\r\n\r\n")  # type: ignore[attr-defined]
            begin = self.headers.get("Range", "").removeprefix("bytes=").partition("-")[0]
            if begin and not content and head.split()[1] == b"206":
                return _error(416)
            content = self._within(content)
            lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"content-length")]
            # In this order, since Google's own server does not leave out a version that an answer's length follows.
            lines += [f"Content-Length: {len(content)}".encode(), f"x-goog-generation: {self._version()}".encode()]
            return b"\r\n".join(lines) + gap + content

        def _within(self, content: bytes) -> bytes:
            """A list of objects between two names, which the emulator gives whole."""
            query = parse_qs(urlsplit(self.path).query)
            if self.command != "GET" or not ({"startOffset", "endOffset"} & query.keys()):
                return content
            first, end = query.get("startOffset", [""])[0], query.get("endOffset", ["\U0010ffff"])[0]
            listed = json.loads(content)
            listed["items"] = [it for it in listed.get("items", ()) if first <= it["name"] < end]
            return json.dumps(listed).encode()

    running = _Server(("127.0.0.1", 0), partial(Handler, objects))
    threading.Thread(target=running.serve_forever, daemon=True).start()
    return objects, stores, f"http://127.0.0.1:{running.server_port}"


@cache
def _amazon() -> str:
    """The server's address."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # else it tells of each request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    return f"http://{host}:{port}"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512
    """Connections that wait; Python's five are lost when clients open many, and these wait for an answer forever."""


def _error(code: int) -> bytes:
    content = json.dumps({"error": {"code": code, "message": f"answered with {code}"}}).encode()
    return (
        f"HTTP/1.0 {code} Error\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n".encode()
        + content
    )


@contextmanager
def running(kind: str, monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[Store]:
    """A bucket of ``gs`` or ``s3`` that this process finds, with a cache of copies of its own."""
    with (google if kind == "gs" else amazon)() as store:
        for name, value in store.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
        yield store
