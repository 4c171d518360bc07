"""Google Cloud Storage: patience with a failing network, one line for every failure."""

import asyncio
import json
import logging
import random
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote

import aiohttp
import google.auth.exceptions
from fsspec.asyn import sync_wrapper
from gcsfs.core import GCSFileSystem, quote
from gcsfs.retry import HttpError, is_retriable

from rae_dit.storage.errors import AccessError, StorageError, one_line

log = logging.getLogger(__name__)

PATIENCE = 300.0  # seconds for which a failing request is repeated
SPEAK_AFTER, SPEAK_EVERY = 10.0, 60.0  # seconds until a wait is logged, and logged again
_LONGEST_PAUSE = 20.0
_TOKEN_PATIENCE = 10.0
_IDLE = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)
_once: Any = GCSFileSystem._request.__wrapped__  # one request, without gcsfs's own repeats


class Buckets(GCSFileSystem):
    """gcsfs's file system with this project's patience and errors.

    Listings are not cached, because other processes and Orbax write there, too. `exists` and its
    like raise where the answer is not known; fsspec's say no.
    """

    def __init__(self, *arguments: Any, patience: float | str = PATIENCE, **options: Any) -> None:
        """Opens no connection yet.

        Args:
            *arguments: of gcsfs.
            patience: seconds for which a failing request is repeated; fsspec takes it from the
                environment variable FSSPEC_GCS_PATIENCE, too.
            **options: of gcsfs.
        """
        options = {"use_listings_cache": False, "requests_timeout": _IDLE} | options
        super().__init__(*arguments, **options)
        self._patience = float(patience)
        self._spoke = -SPEAK_EVERY

    async def _request(self, method: str, path: str, *args: Any, **options: Any) -> Any:
        """Makes a request, again and again while it fails in a way that may pass."""
        what = _described(path, args, options.get("prefix"))
        started, pause = time.monotonic(), 1.0
        with self._speaking(what):
            while True:
                try:
                    return await _once(self, method, path, *args, **options)
                except FileNotFoundError as error:
                    if "/upload/" in path:
                        bucket = what.removeprefix("gs://").partition("/")[0]
                        raise StorageError(
                            f"{what}: there is no bucket {bucket!r}; expected one that exists"
                        ) from error
                    raise
                except Exception as error:
                    waited = time.monotonic() - started
                    if not _may_pass(error) or waited + pause > self._patience_with(error):
                        raise self._described(error, what, waited) from error
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                pause = min(2 * pause, _LONGEST_PAUSE)

    def _patience_with(self, error: Exception) -> float:
        """Returns for how long to repeat: a token may be renewed, but not for long."""
        return min(self._patience, _TOKEN_PATIENCE) if _is_about_login(error) else self._patience

    @contextmanager
    def _speaking(self, what: str) -> Iterator[None]:
        """Logs a line if the block takes long, once for all requests of a time."""
        loop, started = asyncio.get_running_loop(), time.monotonic()

        alarms: list[asyncio.TimerHandle] = []

        def speak() -> None:
            now = time.monotonic()
            if now - self._spoke >= SPEAK_EVERY / 2:
                self._spoke = now
                log.warning("%s: waiting for an answer for %.0f s so far", what, now - started)
            alarms[:] = [loop.call_later(SPEAK_EVERY, speak)]

        alarms.append(loop.call_later(SPEAK_AFTER, speak))
        try:
            yield
        finally:
            alarms[0].cancel()

    def _described(self, error: Exception, what: str, waited: float) -> Exception:
        """Turns a failure into one line; other errors stay."""
        text = one_line(error)
        if isinstance(error, OSError) and text.startswith("Forbidden"):
            account = getattr(self.credentials.credentials, "service_account_email", None)
            return AccessError(
                f"Forbidden: {what}: access is denied to {account or 'these credentials'}; "
                "expected roles/storage.objectUser on the bucket (objectViewer to read)"
            )
        if _is_about_login(error):
            return StorageError(
                f"{what}: no valid credentials ({text}); expected those of "
                "`gcloud auth application-default login`, or a service account of the machine"
            )
        if _may_pass(error):
            since = time.strftime("%H:%M", time.localtime(time.time() - waited))
            return StorageError(
                f"{what}: storage is unavailable since {since} ({type(error).__name__}: {text}); "
                "expected an answer; the same command continues"
            )
        return error

    async def _pipe_file_if(self, path: str, data: bytes, generation: str) -> str:
        """Writes an object if it is of this generation now, "0" if there is none.

        Returns:
            Its new generation.

        Raises:
            FileExistsError: it is of another.
        """
        bucket, key, _ = self.split_path(path)
        head = "Content-Type: application/json; charset=UTF-8\n\n" + json.dumps({"name": key})
        body = "Content-Type: application/octet-stream\n\n"
        answer = await self._call(
            "POST",
            f"{self._location}/upload/storage/v1/b/{quote(bucket)}/o",
            uploadType="multipart",
            ifGenerationMatch=generation,
            headers={"Content-Type": 'multipart/related; boundary="==0=="'},
            data=f"--==0==\n{head}\n--==0==\n{body}".encode() + data + b"\n--==0==--",
            json_out=True,
        )
        return str(answer["generation"])

    pipe_file_if = sync_wrapper(_pipe_file_if)

    async def _exists(self, path: str, **options: Any) -> bool:
        return await self._kind(path) is not None

    async def _isdir(self, path: str) -> bool:
        return await self._kind(path) == "directory"

    async def _isfile(self, path: str) -> bool:
        return await self._kind(path) == "file"

    async def _kind(self, path: str) -> str | None:
        try:
            return str((await self._info(path))["type"])
        except FileNotFoundError:
            return None


def _may_pass(error: Exception) -> bool:
    """Tells whether a failed request may succeed later."""
    return is_retriable(error) or isinstance(error, TimeoutError | ConnectionError)


def _is_about_login(error: Exception) -> bool:
    if isinstance(error, HttpError):
        return str(error.code) == "401"
    return isinstance(error, google.auth.exceptions.GoogleAuthError)


def _described(path: str, args: tuple[Any, ...], prefix: str | None) -> str:
    """Names the object of a request, or what begins with a prefix that it lists."""
    if path.startswith("b/{}"):
        return "/".join(["gs:/", *(str(part) for part in args), *([prefix] if prefix else [])])
    match = re.search(r"(?:^|/)b/([^/?]+)(?:/o/([^/?]+))?", path)
    parts = [unquote(part) for part in match.groups() if part] if match else []
    return f"gs://{'/'.join(parts)}"
