"""The changes to a network or a pool, and their way back."""

from typing import List, NamedTuple, Sequence

NETWORK = "network"
POOL = "pool"

#: As ``before`` of a step "start": the way back leaves it started and defined.
KEPT = "kept"


class Step(NamedTuple):
    """One change. ``verb``: define, redefine, make, autostart, start or stop; "make" makes a pool's
    directory. ``value``: XML to define, or the directory to make. ``before``: what the
    way back needs: the old XML, or the highest directory that is made; or KEPT. ``note``: for people.
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
    """The steps that undo these, in the order to take them."""
    return [
        step._replace(
            verb="keep" if step.before == KEPT else _OPPOSITES[step.verb],
            value=step.before,
            before=step.value,
        )
        for step in reversed(done)
    ]
