"""Objects of two servers: reading, ranges, writing on a condition, and what is said when it fails."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from conversion.store import Objects, StoreError
from conversion.store import objects as layer
from vit_spec import VitportError


def test_what_is_written_is_read_whole_in_ranges_and_in_order(store) -> None:
    objects = Objects(f"{store.address}/a")
    contents = {f"{at:02}/ü {at}": bytes([at]) * (at + 3) for at in range(12)}
    objects.write_all((name, lambda content=content: content) for name, content in contents.items())
    assert objects.names() == sorted(contents)
    assert objects.names("03/") == ["03/ü 3"]
    assert list(objects.read_all((name, None) for name in reversed(contents))) == list(reversed(contents.values()))
    assert list(objects.read_all((name, slice(1, 3)) for name in contents)) == [it[1:3] for it in contents.values()]
    assert objects.read("none") is None
    assert pickle.loads(pickle.dumps(objects)).read("03/ü 3") == contents["03/ü 3"]  # noqa: S301
    objects.delete([*contents, "none"])
    assert objects.names() == []


def test_a_large_object_is_read_in_parts_of_one_version(store, monkeypatch) -> None:
    monkeypatch.setattr(layer, "LARGE", 1000)
    objects = Objects(f"{store.address}/large")
    for size in (0, 1, 999, 1000, 1001, 70_000):
        content = os.urandom(size)
        objects.write("x", content)
        assert (objects.size("x"), b"".join(objects.read_parts("x"))) == (size, content)
        assert [objects.holds("x", at) for at in (0, max(size - 1, 0), size)] == [size > 0, size > 0, False]
    parts = objects.read_parts("x")
    next(parts)
    objects.write("x", os.urandom(70_000))
    with pytest.raises(StoreError, match="was changed while it was read"):
        list(parts)


def test_no_more_is_in_memory_than_is_written_together(store, monkeypatch) -> None:
    monkeypatch.setattr(layer, "_TOGETHER", 1000)
    objects = Objects(f"{store.address}/together")
    made: list[str] = []

    def content(name: str) -> bytes:
        made.append(name)
        before = made[: len(made) - 1 - (len(made) - 1) % 2]  # two are as many as may be held
        assert objects.versions(before) == [it for it in objects.versions(before) if it is not None]
        return bytes(600)

    objects.write_all((name, lambda name=name: content(name)) for name in "abcde")
    assert objects.names() == [*"abcde"]


def test_of_two_writers_one_wins(store) -> None:
    objects = Objects(f"{store.address}/b")
    content, version = objects.read_version("owner")
    assert content is None
    first = objects.write_if("owner", b"one", version)
    assert first is not None
    assert objects.write_if("owner", b"two", version) is None
    second = objects.write_if("owner", b"one again", first)
    assert second is not None
    assert objects.write_if("owner", b"two", first) is None
    assert objects.read_version("owner") == (b"one again", second)
    assert objects.versions(["owner", "none"]) == [second, None]
    assert objects.write_if("owner", None, second) is not None
    assert objects.read("owner") is None


def test_what_fails_is_one_sentence(store) -> None:
    with pytest.raises(StoreError, match=r"bucket .*no-such-bucket does not exist"):
        Objects(store.address.replace("of-tests", "no-such-bucket") + "/a").write("x", b"1")
    with pytest.raises(VitportError, match="is no address of objects"):
        Objects("gs:///x")


def test_a_share_of_requests_that_fail_changes_nothing(store) -> None:
    if store.address.startswith("s3"):
        pytest.skip("moto fails no requests")
    objects = Objects(f"{store.address}/c")
    store.faults = 0.1
    contents = {f"{at}": bytes([at]) * 1000 for at in range(30)}
    objects.write_all((name, lambda content=content: content) for name, content in contents.items())
    assert list(objects.read_all((name, None) for name in contents)) == list(contents.values())


def test_an_answer_that_is_cut_anywhere_is_asked_for_again(store, monkeypatch, request) -> None:
    """Also within its head, which tensorstore takes for an empty object, or for another error."""
    if store.address.startswith("s3"):
        pytest.skip("moto cuts nothing")
    monkeypatch.setattr(layer, "_PAUSES", (0.0, 0.0, 0.0))
    monkeypatch.setitem(layer._RETRIES, "initial_delay", "1ms")
    layer._context.cache_clear()
    request.addfinalizer(layer._context.cache_clear)
    found = Objects(f"{store.address}/d")
    found.write("x", b"content")
    version = found.versions(["x"])
    asks = {
        "read": (lambda: found.read("x"), b"content"),
        "range": (lambda: list(found.read_all([("x", slice(2, 5))])), [b"nte"]),
        "version": (lambda: found.versions(["x"]), version),
        "list": (found.names, ["x"]),
    }
    for name, (ask, expected) in asks.items():
        for length in range(0, 400, 7):
            store.cut = length
            assert ask() == expected, (name, length)
    for length in range(0, 400, 7):
        store.cut = length
        found.write("y", bytes([length % 256]))
        assert found.read("y") == bytes([length % 256])
        _, before = found.read_version("y")
        store.cut = length
        assert found.write_if("y", b"mine %d" % length, before) is not None
        assert found.write_if("y", b"other", before) is None
    store.cut = None


def test_a_refusal_tells_what_to_do(store) -> None:
    if store.address.startswith("s3"):
        pytest.skip("moto refuses nobody")
    store.refused = "secret"
    with pytest.raises(StoreError, match=r"is refused .*gcloud auth application-default login"):
        Objects(f"{store.address}/secret").read("x")
    with pytest.raises(StoreError, match=r"is refused"):
        Objects(f"{store.address}/secret").names()


@pytest.mark.parametrize("fails", [True, False])
def test_no_request_outlives_what_asked_for_it(fails, store) -> None:
    """Where one is refused, and where nobody wants the rest."""
    import tensorstore as ts

    pairs = [ts.Promise.new() for _ in range(5)]
    answer = ts.KvStore.ReadResult(state="value", value=b"x", stamp=ts.KvStore.TimestampedStorageGeneration(b"g", 1.0))
    if fails:
        pairs[0][0].set_exception(ValueError("PERMISSION_DENIED: no"))
    else:
        pairs[0][0].set_result(answer)
    late = threading.Timer(0.2, lambda: [promise.set_result(answer) for promise, _ in pairs[1:]])
    objects = Objects(f"{store.address}/e")
    found = objects._each(lambda at: pairs[at][1], range(5), lambda read: read.value, at_once=4)
    late.start()
    if fails:
        with pytest.raises(StoreError, match="is refused"):
            next(found)
    else:
        assert next(found) == b"x"
        found.close()
    assert all(future.done() for _, future in pairs[:4])
    late.join()


SILENT = """
import os, socket
server = socket.create_server(("127.0.0.1", 0))
os.environ["TENSORSTORE_GCS_HTTP_URL"] = f"http://127.0.0.1:{server.getsockname()[1]}"
from conversion.store import Objects, StoreError, objects
objects._RETRIES |= {"max_retries": 1}
objects._SILENCE |= {"TENSORSTORE_CURL_LOW_SPEED_TIME_SECONDS": "1"}
try:
    Objects("gs://bucket/a").read("x")
except StoreError as error:
    print(error)
"""


def test_a_server_that_never_answers_is_one_sentence() -> None:
    mine = {name: value for name, value in os.environ.items() if not name.startswith("TENSORSTORE_CURL")}
    mine |= {"GOOGLE_AUTH_TOKEN_FOR_TESTING": "x", "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(
        [sys.executable, "-c", SILENT], env=mine, capture_output=True, text=True, timeout=100, check=False
    )
    assert "gs://bucket cannot be reached" in done.stdout, done.stderr
