"""What the demo page's server refuses, without a server."""

import asyncio
import os

import pytest

from rae_dit.demo.guard import (
    ENVELOPE,
    UPLOADS_KEPT,
    BoundedUploads,
    OwnAddressOnly,
    allowed_hosts,
    remove_oldest,
)

MOST = 1000


async def nothing():
    return {"type": "http.request", "body": b"", "more_body": False}


async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})


async def status(app, method="POST", **headers):
    """Status with which a request is answered."""
    sent = []

    async def send(message):
        sent.append(message)

    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    await app({"type": "http", "method": method, "headers": pairs}, nothing, send)
    return sent[0]["status"]


@pytest.mark.parametrize(
    ("method", "origin", "expected"),
    [
        ("POST", "http://localhost:7860", 200),
        ("POST", "http://localhost:8000", 403),
        ("POST", "http://evil.example", 403),
        ("DELETE", "null", 403),
        ("GET", "http://evil.example", 200),  # its answer is not shown to that site
    ],
)
def test_what_another_site_sends_is_refused(method, origin, expected):
    request = status(OwnAddressOnly(app), method, host="localhost:7860", origin=origin)
    assert asyncio.run(request) == expected


def test_names_of_the_page():
    assert "*" not in allowed_hosts("127.0.0.1")
    assert "demo.example" in allowed_hosts("demo.example")
    assert allowed_hosts("0.0.0.0") == ["*"]


def test_a_request_says_its_length_and_is_not_too_large(tmp_path):
    guard = BoundedUploads(app, tmp_path, MOST)
    sizes = {"": 411, "-1": 411, str(MOST): 200, str(MOST + ENVELOPE + 1): 413}
    for size, expected in sizes.items():
        headers = {"content_length": size} if size else {}
        assert asyncio.run(status(guard, **headers)) == expected
    assert asyncio.run(status(guard, "GET")) == 200


def test_uploads_on_their_way_are_bounded(tmp_path):
    async def upload_all():
        released = asyncio.Event()

        async def slow(scope, receive, send):
            await released.wait()
            await app(scope, receive, send)

        guard = BoundedUploads(slow, tmp_path, MOST)
        size = str(MOST + ENVELOPE)
        first = [asyncio.create_task(status(guard, content_length=size)) for _ in range(25)]
        while sum(task.done() for task in first) < 25 - UPLOADS_KEPT:
            await asyncio.sleep(0.01)
        released.set()
        statuses = await asyncio.gather(*first)
        return statuses, await status(guard, content_length=size)

    statuses, later = asyncio.run(asyncio.wait_for(upload_all(), 10))
    assert statuses == [200] * UPLOADS_KEPT + [503] * (25 - UPLOADS_KEPT)
    assert later == 200


def test_the_oldest_files_are_removed(tmp_path):
    for number in range(5):
        path = tmp_path / str(number) / "picture.png"
        path.parent.mkdir()
        path.write_bytes(b"0" * 100)
        os.utime(path, (number, number))
    remove_oldest(tmp_path, 250)
    assert sorted(path.parent.name for path in tmp_path.rglob("*.png")) == ["3", "4"]
    remove_oldest(tmp_path / "missing", 0)
