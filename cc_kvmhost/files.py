"""Files: replaced whole or not at all; paths resolved in an image's tree as from inside it."""

import contextlib
import errno
import fcntl
import logging
import os
import stat
from typing import BinaryIO, Iterator, List, Optional

LOG = logging.getLogger(__name__)

_SELINUX = "security.selinux"
_SELINUX_ON = "/sys/fs/selinux/enforce"
#: Suffix of the new file until it is renamed. It is fixed, so that the next run reuses the file that
#: a killed run left behind.
TEMPORARY = ".kvmhost-tmp"


def inside(root: str, path: str) -> str:
    """``path`` below ``root``; its symlinks are followed as if ``root`` were /."""
    done: List[str] = []
    todo = path.split("/")[::-1]
    followed = 0
    while todo:
        part = todo.pop()
        here = os.path.join(root, *(done + [part]))
        if part in ("", "."):
            continue
        if part == "..":
            done = done[:-1]
        elif os.path.islink(here) and followed < 40:
            followed += 1
            target = os.readlink(here)
            done = [] if target.startswith("/") else done
            todo.extend(target.split("/")[::-1])
        else:
            done.append(part)
    return os.path.join(root, *done)


def read(path: str) -> Optional[bytes]:
    """The content, or None if there is no such file."""
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except FileNotFoundError:
        return None


def replace(path: str, content: bytes, root: str = "/") -> None:
    """Put content at path in one step: a reader, or a crash, sees the old file or the new one.

    A file that was there keeps its owner, mode and SELinux label; a new one gets 0644 and the label
    of the policy.

    :param root: the tree that the path is in; what is / there is / for the policy
    """
    with _temporary(path + TEMPORARY) as stream:
        stream.write(content)
        stream.flush()
        os.fchmod(stream.fileno(), 0o644)
        with contextlib.suppress(FileNotFoundError):
            old = os.stat(path)
            os.fchown(stream.fileno(), old.st_uid, old.st_gid)
            os.fchmod(stream.fileno(), stat.S_IMODE(old.st_mode))
        _label(stream.fileno(), path, root)
        os.fsync(stream.fileno())
        os.rename(path + TEMPORARY, path)


def make_directory(path: str) -> None:
    """Make a directory and its missing parents, readable by everybody whatever the umask is."""
    if not os.path.isdir(path):
        make_directory(os.path.dirname(path))
        with contextlib.suppress(FileExistsError):
            os.mkdir(path)
            os.chmod(path, 0o755)


def restore(path: str, content: Optional[bytes]) -> None:
    """Make the file what it was when read() returned ``content``."""
    if content is None:
        remove(path)
    else:
        replace(path, content)


def remove(path: str) -> None:
    """Remove a file or link, if there is one."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _label(descriptor: int, path: str, root: str) -> None:
    """Give an open file the SELinux label of the file at path, or else the policy's label for path.
    Without this it has its directory's label, and then tuned may not write its files."""
    try:
        label = os.getxattr(path, _SELINUX)
    except OSError:  # no such file, or no labels here
        label = _label_of_policy(os.path.join("/", os.path.relpath(path, root)))
    if label:
        try:
            os.setxattr(descriptor, _SELINUX, label)
        except OSError as error:
            LOG.debug("%s: its SELinux label can't be set: %s", path, error)


def _label_of_policy(path: str) -> bytes:
    """The label of a new file, as it is stored; empty without SELinux."""
    label = label_of_policy(path, stat.S_IFREG) if has_selinux() else ""
    return label.encode() + b"\0" if label else b""


def has_selinux() -> bool:
    """Whether SELinux is in force here, or would be (permissive)."""
    return os.path.exists(_SELINUX_ON)


def label_of_policy(path: str, kind: int) -> str:
    """The label that SELinux's policy has for a new file; "" if it has none, or without
    python3-libselinux.

    :param kind: the file's, as in st_mode
    """
    try:
        import selinux

        return str(selinux.matchpathcon(path, kind)[1])
    except (ImportError, OSError) as error:  # OSError: the policy has none
        LOG.debug("%s: no SELinux label: %s", path, error)
        return ""


def set_label(path: str, label: str) -> None:
    """Give a file an SELinux label; nothing where a file system has one label for all of its files."""
    try:
        os.setxattr(path, _SELINUX, label.encode() + b"\0", follow_symlinks=False)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise


@contextlib.contextmanager
def _temporary(path: str) -> Iterator[BinaryIO]:
    """Open an empty file that no other process of ours writes to. The caller renames it; if the
    caller fails, it is removed."""
    while True:
        if os.path.islink(path):  # we make no links here, and this one may point anywhere
            remove(path)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(path, flags, 0o600), "r+b") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            # The process that held the lock before us may have renamed this file: then open anew.
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
