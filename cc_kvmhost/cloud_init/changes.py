"""A change of cloud-init's files, and how it is made: all of them, or none if one can't be."""

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
    """One file that is not as it should be, and what makes it so."""

    path: str
    why: str
    make: Callable[[], None]


def collected(calls: Iterable[Callable[[], T]]) -> List[T]:
    """Each call's result; if some of them fail, the problems of all are raised once."""
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
    """One registration at a time: a package manager's trigger may run while we do."""
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
    """What is in a directory, in the order in which cloud-init reads it."""
    try:
        return sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise KvmhostError([f"{directory}: {error.strerror}: run this as root"]) from None


def read(path: str) -> bytes:
    """A file's bytes; none if there is no such file."""
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
    """Make the changes: none if one of the places can't be written to."""
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
    """A rename is on the disk once its directory is."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
