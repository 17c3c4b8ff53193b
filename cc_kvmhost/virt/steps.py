"""What can be done to a network or a pool, and what takes it back."""

from typing import List, NamedTuple, Sequence

NETWORK = "network"
POOL = "pool"

#: As ``before`` of a step "start": what is started stays so, and its definition too.
KEPT = "kept"


class Step(NamedTuple):
    """One change. ``verb``: define, redefine, make, autostart, start or stop; "make" makes a pool's
    directory. ``value``: XML to define, or the directory to make. ``before``: what stood there: the
    XML, or the highest directory that is to be made; or KEPT. ``note``: for people.
    ``label``: the SELinux label of a directory to make, "" for none.
    """

    verb: str
    kind: str
    name: str
    value: str = ""
    before: str = ""
    note: str = ""
    label: str = ""

    def __str__(self) -> str:
        return f"{self.verb} {self.kind} {self.name}" + (f" ({self.note})" if self.note else "")


_OPPOSITES = {
    "define": "undefine",
    "redefine": "redefine",
    "make": "unmake",
    "autostart": "no-autostart",
    "start": "stop",
    "stop": "start",
}


def back(done: Sequence[Step]) -> List[Step]:
    """The steps that take back what was done, in their order."""
    return [
        step._replace(
            verb="keep" if step.before == KEPT else _OPPOSITES[step.verb],
            value=step.before,
            before=step.value,
        )
        for step in reversed(done)
    ]
