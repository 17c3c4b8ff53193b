"""Files written whole or not at all."""

import contextlib
import fcntl
import os
import stat
from typing import BinaryIO, Iterator, Optional

#: What the new content's file is called until it takes its place. Always the same for one file, so
#: that the next run uses up what a killed run left.
TEMPORARY = ".kvmhost-tmp"


def read(path: str) -> Optional[bytes]:
    """The content, or None if there is no such file."""
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except FileNotFoundError:
        return None


def replace(path: str, content: bytes) -> None:
    """Put content at path in one step: a reader, or a crash, sees the old file or the new one.

    A file that was there keeps its owner and mode; a new one gets 0644.
    """
    with _temporary(path + TEMPORARY) as stream:
        stream.write(content)
        stream.flush()
        os.fchmod(stream.fileno(), 0o644)
        with contextlib.suppress(FileNotFoundError):
            old = os.stat(path)
            os.fchown(stream.fileno(), old.st_uid, old.st_gid)
            os.fchmod(stream.fileno(), stat.S_IMODE(old.st_mode))
        os.fsync(stream.fileno())
        os.rename(path + TEMPORARY, path)


def restore(path: str, content: Optional[bytes]) -> None:
    """Bring back what read() returned."""
    if content is None:
        remove(path)
    else:
        replace(path, content)


def remove(path: str) -> None:
    """Remove a file or link, if there is one."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


@contextlib.contextmanager
def _temporary(path: str) -> Iterator[BinaryIO]:
    """An empty file that nobody else writes to. It is gone afterwards, or has another name."""
    while True:
        if os.path.islink(path):  # not ours, and it might lead anywhere
            remove(path)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(path, flags, 0o600), "r+b") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            # Whoever held the lock until now has moved the file to its place.
            try:
                ours = os.path.samestat(os.stat(path), os.fstat(stream.fileno()))
            except FileNotFoundError:
                ours = False
            if ours:
                try:
                    stream.truncate()
                    yield stream
                except BaseException:
                    remove(path)
                    raise
                return
