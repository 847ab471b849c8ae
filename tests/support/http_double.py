"""A local HTTP server of files that keeps to ranges and ETags, and does what networks do: each
injected fault spoils one answer.
"""

import hashlib
import re
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

FAULTS = (
    "reset",
    "drop",
    "no answer",
    "500",
    "503",
    "429",
    "truncated",
    "wrong bytes",
    "drip",
    "range ignored",
    "range of a lie",
    "other range",
    "unannounced end",
)
PAGE = b"<!DOCTYPE html>\n<html><title>Please log in</title></html>\n"


@dataclass
class Double:
    """Files by path, and the faults of the next answers to GET."""

    files: dict[str, bytes] = field(default_factory=dict)
    headers: dict[str, dict[str, str]] = field(default_factory=dict)
    """More headers by path."""
    faults: deque[str] = field(default_factory=deque)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    """(method, path, Range) of every request."""
    sent: int = 0
    """Bytes of bodies."""
    url: str = ""
    token: str | None = None
    """Authorization of the request that is answered."""
    etags: bool = True
    chunk: int = 1 << 15
    pause: float = 0
    """Seconds after each chunk."""

    def answer(self, path: str) -> tuple[int, bytes, dict[str, str]]:
        """Status, body and headers of a path."""
        if path not in self.files:
            return 404, b"not found", {}
        body = self.files[path]
        headers = {"ETag": f'"{hashlib.md5(body).hexdigest()}"'} if self.etags else {}
        return 200, body, headers | self.headers.get(path, {})

    def write(self, method: str, path: str, body: bytes) -> tuple[int, bytes, dict[str, str]]:
        """The answer to what is sent to a path."""
        return 405, b"", {}

    def bodies(self, path: str) -> int:
        """GET requests of a path."""
        return sum(method == "GET" and asked == path for method, asked, _ in self.requests)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._serve(body=False)

    def do_GET(self) -> None:
        self._serve(body=True)

    def do_POST(self) -> None:
        self._write()

    def do_PUT(self) -> None:
        self._write()

    def _write(self) -> None:
        double: Double = self.server.double
        double.requests.append((self.command, self.path, None))
        double.token = self.headers.get("Authorization")
        body = self._body()
        code, content, headers = double.write(self.command, self.path, body)
        self._send(code, content, headers)

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _serve(self, *, body: bool) -> None:
        double: Double = self.server.double
        asked = self.headers.get("Range")
        double.requests.append((self.command, self.path, asked))
        fault = double.faults.popleft() if body and double.faults else ""
        if fault == "no answer":
            return self._end(reset=False)
        if fault.isdigit():
            return self._send(int(fault), b"trouble", {"Retry-After": "0"})
        if fault == "page":
            return self._send(200, PAGE, {"Content-Type": "text/html; charset=utf-8"})
        double.token = self.headers.get("Authorization")
        code, content, headers = double.answer(self.path)
        start = 0
        match = re.fullmatch(r"bytes=(\d+)-", asked or "")
        same = self.headers.get("If-Range") in (None, headers.get("ETag"))
        if code == 200 and match and same and fault != "range ignored":
            start = int(match[1])
            if start >= len(content):
                return self._send(416, b"", {"Content-Range": f"bytes */{len(content)}"})
            shown = start + 1 if fault == "other range" else start
            headers["Content-Range"] = f"bytes {shown}-{len(content) - 1}/{len(content)}"
            code = 206
        data = content[start:]
        if fault == "range of a lie" and start:
            data = content[: len(data)]
        if fault == "wrong bytes" and data:
            middle = (len(data) // 2 + 7 * len(double.requests)) % len(data)
            data = data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :]
        if fault == "truncated":
            data = data[: len(data) // 2]
            headers.pop("Content-Range", None)
        self._send(code, data if body else b"", headers, length=len(data), fault=fault)

    def _send(
        self,
        code: int,
        data: bytes,
        headers: dict[str, str],
        *,
        length: int | None = None,
        fault: str = "",
    ) -> None:
        double: Double = self.server.double
        self.send_response(code)
        if fault == "unannounced end":
            self.send_header("Connection", "close")
            data = data[: len(data) // 2]
        else:
            self.send_header("Content-Length", str(len(data) if length is None else length))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        limit = len(data) // 3 if fault in ("reset", "drop") else len(data)
        step = 16 if fault == "drip" else double.chunk
        try:
            for at in range(0, limit, step):
                piece = data[at : min(at + step, limit)]
                self.wfile.write(piece)
                double.sent += len(piece)
                if fault == "drip":
                    time.sleep(0.02)
                elif double.pause:
                    time.sleep(double.pause)
        except OSError:
            self.close_connection = True
            return
        if fault in ("reset", "drop", "unannounced end"):
            self._end(reset=fault == "reset")

    def _end(self, *, reset: bool) -> None:
        self.close_connection = True
        try:
            if reset:
                linger = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.connection.close()
            else:
                self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    double: Double

    def handle_error(self, request: object, client_address: object) -> None:
        pass


@contextmanager
def serving(double: Double) -> Iterator[Double]:
    """A server of `double` on this host, as long as the block runs."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.double = double
    double.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield double
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
