"""Changes of cloud-init's files: none is made if one of the places can't be written to."""

import fcntl
import json
import os
from contextlib import contextmanager
from typing import Any, Callable, Iterable, Iterator, List, NamedTuple, Tuple, TypeVar

from .. import files
from ..errors import KvmhostError
from ..files import inside

T = TypeVar("T")

CLOUD_DIR = "/etc/cloud"


class Change(NamedTuple):
    """One file to change. ``make`` changes it."""

    path: str
    why: str
    make: Callable[[], None]


def collected(calls: Iterable[Callable[[], T]]) -> List[T]:
    """The results of all calls; if some fail, one error has the problems of all."""
    results: List[T] = []
    problems: List[str] = []
    for call in calls:
        try:
            results.append(call())
        except KvmhostError as error:
            problems.extend(error.problems)
    if problems:
        raise KvmhostError(problems)
    return results


@contextmanager
def locked(root: str) -> Iterator[None]:
    """Let one registration work at a time: a package manager's trigger may run beside us."""
    directory = inside(root, CLOUD_DIR)
    try:
        lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise KvmhostError([f"{directory}: {error.strerror}: install cloud-init first"]) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def names(directory: str) -> List[str]:
    """The names in a directory, in the order in which cloud-init reads them."""
    try:
        return sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise KvmhostError([f"{directory}: {error.strerror}: run this as root"]) from None


def read(path: str) -> bytes:
    """A file's content; empty if there is no such file."""
    try:
        return files.read(path) or b""
    except OSError as error:
        raise KvmhostError([f"{path}: {error.strerror}: run this as root"]) from None


def read_json(path: str) -> Any:
    try:
        return json.loads(read(path).decode("utf-8"))
    except ValueError as error:
        raise KvmhostError(
            [f"{path}: not JSON ({error}): reinstall the package it belongs to"]
        ) from None


def make(changes: List[Change]) -> Tuple[str, ...]:
    """Make the changes, or none if a directory can't be written to; returns why each was made."""
    places = sorted({os.path.dirname(change.path) for change in changes})
    problems = [
        f"{place}: not writable: run this as root; if /usr is read-only, while the image is built"
        for place in places
        if not os.access(place, os.W_OK)
    ]
    if problems:
        raise KvmhostError(problems)
    for change in changes:
        try:
            change.make()
            _sync(os.path.dirname(change.path))
        except OSError as error:
            problem = f"{change.path}: {error.strerror}; mend that and run this again"
            raise KvmhostError([problem]) from None
    return tuple(change.why for change in changes)


def _sync(directory: str) -> None:
    """Write a directory to the disk, and so the renames in it."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
