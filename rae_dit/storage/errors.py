"""Errors of object storage, and telling them from damaged content."""

import re

# Parts of the messages of tensorstore, whose errors are plain ValueErrors, that are about the
# storage and say nothing about the content.
_UNRELATED = re.compile(
    "PERMISSION_DENIED|UNAUTHENTICATED|UNAVAILABLE|DEADLINE_EXCEEDED|RESOURCE_EXHAUSTED|ABORTED"
    r"|CURL error|HTTP response code: (?:401|403|408|429|5\d\d)"
)
# Packages whose exceptions, but for those that say a file is not there, are about the storage.
_CLIENTS = ("aiohttp", "gcsfs", "google", "botocore", "aiobotocore", "requests", "httpx")


class StorageError(RuntimeError):
    """Object storage cannot be used; the message is one line.

    No OSError, so that nothing takes it for a missing or damaged file.
    """


class AccessError(StorageError, OSError):
    """Access is denied. An OSError too, because gcsfs looks for another way then."""


def storage_failure(error: BaseException) -> str:
    """Describes the failure of storage that an exception is about.

    Args:
        error: raised by Orbax, tensorstore, gcsfs and others; its causes are looked at as well.

    Returns:
        One line; '' if it is about something else, such as the content of a file.
    """
    seen: list[BaseException] = []
    now: BaseException | None = error
    while now is not None and now not in seen:
        seen.append(now)
        if isinstance(now, StorageError | ConnectionError | TimeoutError) or _is_clients(now):
            return one_line(now)
        if isinstance(now, ValueError | OSError) and _UNRELATED.search(str(now)):
            return one_line(now)
        now = now.__cause__ or now.__context__
    return ""


def _is_clients(error: BaseException) -> bool:
    package = type(error).__module__.partition(".")[0]
    return package in _CLIENTS and not isinstance(error, FileNotFoundError)


def one_line(error: BaseException) -> str:
    """Returns the message of an exception, or its name, in one line of at most 300 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]}..."
