"""A server of the files in a folder as objects, ``gs://shards``, whose answers take a while: ``python -m
benchmarks.slow_store FOLDER SECONDS``. It prints its address.

It answers what reading needs, costs little of the machine's time, and waits for each request alone, as a store that is
far away does.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

_NAME = re.compile(r"/b/shards/o/?(?P<name>[^/?]*)$")


class Store:
    """The objects, all in memory."""

    def __init__(self, folder: Path, delay: float) -> None:
        self._delay = delay
        self._objects = {str(it.relative_to(folder)): it.read_bytes() for it in folder.rglob("*") if it.is_file()}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until it is closed."""
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                await asyncio.sleep(self._delay)
                writer.write(self._answer(head))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    def _answer(self, head: str) -> bytes:
        parts = urlsplit(head.split(" ", 2)[1])
        found = _NAME.search(parts.path)
        name = unquote(found["name"]) if found else ""
        if not name:
            return _response("200 OK", json.dumps({"items": [{"name": name} for name in self._objects]}).encode())
        content = self._objects.get(name)
        if content is None:
            return _response("404 Not Found", b"{}")
        if "alt=media" not in parts.query:
            described = {"name": name, "generation": "1", "size": str(len(content))}
            return _response("200 OK", json.dumps(described).encode())
        asked = re.search(r"^range: bytes=(\d+)-(\d*)", head, re.IGNORECASE | re.MULTILINE)
        if asked is None:
            return _response("200 OK", content)
        begin, end = int(asked[1]), min(int(asked[2]) + 1 if asked[2] else len(content), len(content))
        if begin >= end:
            return _response("416 Range Not Satisfiable", b"{}")
        return _response("206 Partial Content", content[begin:end], f"bytes {begin}-{end - 1}/{len(content)}")


def _response(status: str, content: bytes, part: str | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(content)}", "x-goog-generation: 1"]
    lines += [f"Content-Range: {part}"] if part else []
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


async def _main(folder: Path, delay: float) -> None:
    server = await asyncio.start_server(Store(folder, delay).serve, "127.0.0.1", 0, backlog=512)
    host, port = server.sockets[0].getsockname()
    sys.stdout.write(f"http://{host}:{port}\n")
    sys.stdout.flush()
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1]), float(sys.argv[2])))
