"""What the page's server refuses: requests of other sites, and uploads without room for them."""

import asyncio
import contextlib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

# The browser asks no other address, whatever gradio's page may name.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "worker-src 'self' blob:; connect-src 'self' data: blob:; frame-ancestors 'self'"
)
UPLOADS_KEPT = 20  # largest uploads that the disk keeps at once
ENVELOPE = 2**16  # bytes of a request around an upload
READS = ("GET", "HEAD", "OPTIONS")


def allowed_hosts(host: str) -> list[str]:
    """Returns the names under which the page may be asked for.

    A name of another site that leads to this machine (DNS rebinding) is none of them, so that
    site's scripts read nothing. All names are allowed where the page is open to all machines.

    Args:
        host: address that the server listens at.
    """
    if host in ("0.0.0.0", "::"):
        return ["*"]
    return ["localhost", "127.0.0.1", "::1", "[::1]", host]


class OwnAddressOnly:
    """ASGI middleware that adds `POLICY` to every answer and refuses what other sites send."""

    def __init__(self, app: Any):
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Passes a request on, or answers 403."""

        async def send_with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = [
                    *message.get("headers", []),
                    (b"content-security-policy", POLICY.encode()),
                ]
                message = {**message, "headers": headers}
            await send(message)

        if scope["type"] == "http" and scope["method"] not in READS:
            origin, host = header(scope, b"origin"), header(scope, b"host")
            if origin is not None and urlsplit(origin).netloc != host:
                await refuse(send_with_policy, 403, f"Origin: got {origin}; expected {host}")
                return
        await self.app(scope, receive, send_with_policy)


class BoundedUploads:
    """ASGI middleware that bounds what requests send, one by one and together.

    Before an upload the oldest files are removed, so that the folder and all uploads on their way
    are at most `UPLOADS_KEPT` of the largest ones.

    Args:
        app: the server.
        folder: for uploads; of this server alone.
        most_bytes: size of an upload that is allowed.
    """

    def __init__(self, app: Any, folder: Path, most_bytes: int):
        self.app = app
        self.folder = folder
        self.most_bytes = most_bytes + ENVELOPE
        self.room = UPLOADS_KEPT * self.most_bytes
        self.on_their_way = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Passes a request on, or answers 411 (no length), 413 (too large) or 503 (no room)."""
        if scope["type"] != "http" or scope["method"] in READS:
            await self.app(scope, receive, send)
            return
        length = header(scope, b"content-length") or ""
        if not (length.isascii() and length.isdigit()):
            await refuse(send, 411, "Content-Length: missing")
        elif (size := int(length)) > self.most_bytes:
            await refuse(send, 413, f"upload: got {size} bytes; expected at most {self.most_bytes}")
        elif self.on_their_way + size > self.room:
            await refuse(send, 503, "too many uploads at once; try again")
        else:
            self.on_their_way += size
            try:
                if size > ENVELOPE:
                    keep_newest = self.room - self.on_their_way
                    await asyncio.to_thread(remove_oldest, self.folder, keep_newest)
                await self.app(scope, receive, send)
            finally:
                self.on_their_way -= size


def remove_oldest(folder: Path, most_bytes: int) -> None:
    """Removes the oldest files below a folder until the rest is at most `most_bytes`."""
    found = []
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # removed meanwhile
            if path.is_file():
                stat = path.stat()
                found.append((stat.st_mtime, stat.st_size, path))
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= most_bytes:
            return
        path.unlink(missing_ok=True)
        total -= size


def header(scope: Any, name: bytes) -> str | None:
    """Returns a header of a request; None where there is none."""
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), None)


async def refuse(send: Any, status: int, text: str) -> None:
    """Answers a request with a status and a line of text."""
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
