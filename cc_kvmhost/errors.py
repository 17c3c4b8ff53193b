"""What went wrong, all of it, raised once."""

from typing import Iterable


class KvmhostError(Exception):
    """The input or the host is at fault; nothing was changed, or everything was put back.

    ``problems`` (tuple of str): one line each, saying which key, unit or file, what was
    found, what is allowed or what to do next.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))
