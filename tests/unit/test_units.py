"""What systemd says of single units: which service holds a socket, why a unit failed."""

from typing import Any, Dict, List

import pytest

from cc_kvmhost import host
from cc_kvmhost.systemd import failure
from cc_kvmhost.systemd.manager import UnitState


class Systemd:
    """A manager that knows one socket, its service, and their properties."""

    def __init__(self, service: UnitState, **properties: Any) -> None:
        self._service = service
        self._properties = dict({"Triggers": [b"x.service"]}, **properties)

    def property(self, path: bytes, interface: str, name: str, signature: str) -> Any:
        return self._properties[name]

    def units(self, names: List[str]) -> Dict[str, UnitState]:
        return dict.fromkeys(names, self._service)


def state(name: str, active: str, sub: str = "x") -> UnitState:
    return UnitState(name, "loaded", active, sub, b"/x")


class TestHolder:
    @pytest.mark.parametrize(
        "active, sub, held",
        [
            ("active", "running", True),
            ("active", "exited", True),
            ("activating", "start-pre", True),
            ("activating", "auto-restart", False),
            ("activating", "auto-restart-queued", False),
            ("deactivating", "stop-sigterm", True),
            ("inactive", "dead", False),
            ("failed", "failed", False),
        ],
    )
    def test_of_a_socket(self, active: str, sub: str, held: bool) -> None:
        manager: Any = Systemd(state("x.service", active, sub))
        holder = host._holder(manager, state("x.socket", "inactive", "dead"))
        assert holder == ("x.service" if held else "")

    def test_none_of_one_that_listens_or_of_no_socket(self) -> None:
        manager: Any = Systemd(state("x.service", "active"))
        assert host._holder(manager, state("x.socket", "active")) == ""
        assert host._holder(manager, state("x.timer", "inactive")) == ""


class TestFailure:
    def test_of_a_service(self) -> None:
        manager: Any = Systemd(state("", ""), Result=b"exit-code", ExecMainStatus=203)
        said = failure.details(manager, state("x.service", "failed"))
        assert said == ["exit-code", "exit status 203/EXEC"]

    def test_nothing_is_said_of_a_success(self) -> None:
        manager: Any = Systemd(state("", ""), Result=b"success")
        assert failure.details(manager, state("x.socket", "inactive")) == []

    def test_of_what_is_not_loaded(self) -> None:
        manager: Any = Systemd(state("", ""))
        assert failure.details(manager, UnitState("x.service", "not-found")) == ["not-found"]
