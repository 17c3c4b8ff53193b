"""The error of this package: it collects every problem and is raised once."""

from typing import Iterable


class KvmhostError(Exception):
    """The input or the host is at fault; nothing was changed, or everything was put back.

    ``problems`` (tuple of str): one line each. A line says which key, unit or file is wrong, what
    was found, and what is allowed or what to do next.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))
