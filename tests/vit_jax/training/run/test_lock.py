"""One owner for each work directory. Oracle: the processes themselves, some of them killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from vit_jax.training.run import lock as lock_module
from vit_jax.training.run.lock import FILE, Lock, refuse_held
from vit_jax.training.run.owner import Owner
from vit_jax.training.run.writing import UnwrittenError
from vit_spec import VitportError

pytestmark = pytest.mark.jax_alone

HOLD = """
import sys, time
from pathlib import Path
from vit_jax.training.run.lock import Lock
from vit_spec import VitportError

while not Path(sys.argv[2]).exists():
    time.sleep(0.001)
try:
    lock = Lock(Path(sys.argv[1]))
except VitportError as error:
    print("refused", error, flush=True)
else:
    print("held", flush=True)
    time.sleep(100)
"""


def _process(workdir: Path, begin: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", HOLD, str(workdir), str(begin)], stdout=subprocess.PIPE, text=True)


def _said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


@pytest.fixture
def holder(tmp_path):
    """A process that holds ``tmp_path / "run"``."""
    process = _process(tmp_path / "run", tmp_path)
    assert _said(process) == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_process_is_refused_with_who_holds_the_directory(holder, tmp_path) -> None:
    begin = time.monotonic()
    for try_it in (Lock, refuse_held):
        with pytest.raises(VitportError, match=rf"run is in use by another run \(process {holder.pid} on .*, since 20"):
            try_it(tmp_path / "run")
    assert time.monotonic() - begin < 1
    assert [path.name for path in (tmp_path / "run").iterdir()] == [FILE]


@pytest.mark.parametrize("reaped", [True, False], ids=["reaped", "a zombie"])
def test_the_lock_of_a_killed_process_goes_to_the_next(reaped, holder, tmp_path) -> None:
    holder.kill()
    if reaped:
        holder.wait()
    else:
        while Path(f"/proc/{holder.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            time.sleep(0.01)
    refuse_held(tmp_path / "run")
    with Lock(tmp_path / "run") as lock:
        lock.check()
        assert json.loads((tmp_path / "run" / FILE).read_text())["pid"] == os.getpid()
    assert not list((tmp_path / "run").iterdir())


@pytest.mark.parametrize("links", [True, False], ids=["links", "without links"])
def test_of_many_that_take_a_dead_lock_at_once_one_gets_it(links, tmp_path, monkeypatch) -> None:
    """Threads stand for processes: each has a token of its own. Processes do the same in the slow test below."""
    if not links:
        monkeypatch.setattr(os, "link", _no_links)
    for attempt in range(5):
        workdir = tmp_path / str(attempt)
        _leave(workdir, born="1")
        begin, held, refused = threading.Barrier(8), [], []

        def take(workdir=workdir, begin=begin, held=held, refused=refused) -> None:
            begin.wait()
            try:
                held.append(Lock(workdir))
            except VitportError as error:
                refused.append(str(error))

        threads = [threading.Thread(target=take) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(held) == 1
        assert len(refused) == 7
        assert all(f"process {os.getpid()} on" in sentence for sentence in refused)
        held[0].check()
        held[0].release()
        assert not list(workdir.iterdir())


@pytest.mark.slow
def test_of_many_processes_one_gets_the_lock_of_a_killed_one(holder, tmp_path) -> None:
    processes = [_process(tmp_path / "run", tmp_path / "begin") for _ in range(6)]
    time.sleep(3)
    holder.kill()
    holder.wait()
    (tmp_path / "begin").touch()
    said = [_said(process) for process in processes]
    for process in processes:
        process.kill()
        process.communicate()
    assert sum(text == "held\n" for text in said) == 1
    assert sum(text.startswith("refused") for text in said) == 5


def _no_links(*names: object) -> None:
    raise OSError(95, "Operation not supported")


def _leave(workdir: Path, **changes: str) -> Path:
    """The lock of a process that did not release it."""
    workdir.mkdir()
    owner = replace(Owner.here(), host="elsewhere", **changes)
    (workdir / FILE).write_text(json.dumps(asdict(owner)))
    return workdir / FILE


@pytest.fixture
def quick(monkeypatch) -> None:
    """Seconds instead of minutes."""
    monkeypatch.setattr(lock_module, "_BEAT", 0.2)
    monkeypatch.setattr(lock_module, "LEASE", 1.0)


def test_a_process_that_cannot_be_seen_lives_while_it_gives_signs_of_life(quick, tmp_path) -> None:
    """On another host, whose process table is not this one's."""
    path = _leave(tmp_path / "run", machine="another")
    ended = threading.Event()

    def live() -> None:
        while not ended.wait(0.1):
            os.utime(path)

    thread = threading.Thread(target=live)
    thread.start()
    with pytest.raises(VitportError, match=r"in use by another run .* on elsewhere"):
        Lock(tmp_path / "run")
    refuse_held(tmp_path / "run")  # it does not wait for any
    ended.set()
    thread.join()
    told: list[str] = []
    with Lock(tmp_path / "run", told.append):
        assert json.loads(path.read_text())["host"] != "elsewhere"
    assert "waiting 1 seconds for a sign of life" in told[0]


def test_an_owner_gives_signs_of_life(quick, tmp_path) -> None:
    with Lock(tmp_path / "run"):
        before = (tmp_path / "run" / FILE).stat().st_mtime_ns
        time.sleep(0.6)
        assert (tmp_path / "run" / FILE).stat().st_mtime_ns > before


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("deleted", "was deleted, moved, unmounted or replaced"),
        ("moved", "was deleted, moved, unmounted or replaced"),
        ("replaced", "was deleted, moved, unmounted or replaced"),
        ("taken over", r"was taken over by another run \(process 7 on elsewhere"),
    ],
)
def test_an_owner_notices_that_the_directory_is_no_longer_its_own(change, sentence, quick, tmp_path) -> None:
    run = tmp_path / "run"
    lock = Lock(run)
    if change == "taken over":
        (run / FILE).write_text(json.dumps(asdict(replace(Owner.here(), host="elsewhere", pid=7))))
    elif change == "deleted":
        (run / FILE).unlink()
        run.rmdir()
    else:
        run.rename(tmp_path / "away")
        if change == "replaced":
            run.mkdir()
    end = time.monotonic() + 5
    while lock.trouble is None and time.monotonic() < end:  # by itself, without being asked
        time.sleep(0.05)
    with pytest.raises(UnwrittenError, match=sentence):
        lock.check()
    others = sorted(path.name for path in tmp_path.rglob("*"))
    lock.release()
    assert sorted(path.name for path in tmp_path.rglob("*")) == others  # what is another's stays


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": "x"}', '{"host": 1}', "[" * 4000])
def test_a_file_that_names_no_owner_gives_way(content, quick, tmp_path) -> None:
    """As a process may leave it that was killed while it wrote it, on file systems without links."""
    (tmp_path / FILE).write_text(content)
    told: list[str] = []
    with Lock(tmp_path, told.append) as lock:
        lock.check()
    assert told == [f"{tmp_path / FILE} names no owner: waiting 1 seconds for a sign of life"]


def test_what_is_no_file_is_one_sentence(tmp_path) -> None:
    os.mkfifo(tmp_path / FILE)
    with pytest.raises(VitportError, match=r"cannot be written .*not a regular file"):
        Lock(tmp_path)


def test_a_link_that_leads_nowhere_is_one_sentence_and_not_waited_for(tmp_path) -> None:
    (tmp_path / FILE).symlink_to("nowhere")
    with pytest.raises(VitportError, match=r"cannot be written .*a link that leads nowhere"):
        Lock(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_folders_that_it_made_go_with_it_unless_they_hold_something(tmp_path) -> None:
    for keep in (False, True):
        with Lock(tmp_path / "a" / "b"):
            if keep:
                (tmp_path / "a" / "metrics.jsonl").touch()
        assert (tmp_path / "a").exists() == keep
