"""Files written whole or not at all."""

import os
import tempfile
from typing import Optional


def read(path: str) -> Optional[bytes]:
    """The content, or None if there is no such file."""
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except FileNotFoundError:
        return None


def replace(path: str, content: bytes, mode: int = 0o644) -> None:
    """Put content at path in one step: a reader, or a crash, sees the old file or the new one."""
    descriptor, temporary = tempfile.mkstemp(
        prefix=os.path.basename(path) + ".", dir=os.path.dirname(path)
    )
    try:
        with open(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fchmod(stream.fileno(), mode)
            os.fsync(stream.fileno())
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def restore(path: str, content: Optional[bytes]) -> None:
    """Bring back what read() returned."""
    if content is None:
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
    else:
        replace(path, content)
