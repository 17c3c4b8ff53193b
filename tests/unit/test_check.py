"""The check, without what it checks: its order and record, what a plan and a report say of it."""

import json
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Tuple
from unittest import mock

import model_hosts
import pytest

from cc_kvmhost import check, plan
from cc_kvmhost.check import Check, Order
from cc_kvmhost.host import Unit
from cc_kvmhost.kvm import Kvm
from cc_kvmhost.plan import NoPlan
from cc_kvmhost.report import Report
from cc_kvmhost.virt import units
from cc_kvmhost.virt.daemons import Endpoint, endpoints
from cc_kvmhost.virt.level import Means
from cc_kvmhost.virt.secret_key import PATH, SecretKey

ORDER = Order(
    "guest",
    "modular",
    (Endpoint("virtqemud", "/run/libvirt/virtqemud-sock", "qemu"), Endpoint("virtlogd", "/x")),
    "x86_64",
    True,
)
PASSED = Check("guest", True, "kvm", 12.5)
MEANS = Means("x86_64", True)


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "check.json"
    monkeypatch.setattr(check, "RECORD", str(path))
    return path


class TestReuse:
    def write(self, record: Path, order: Order = ORDER, made: Check = PASSED) -> None:
        record.write_text(json.dumps({"order": order, "check": made._asdict()}))

    def test_the_same_order(self, record: Path) -> None:
        self.write(record)
        assert check.reuse(ORDER) == PASSED._replace(reused=True)

    def test_a_lower_level_too(self, record: Path) -> None:
        self.write(record)
        assert check.reuse(ORDER._replace(level="daemons")) == PASSED._replace(reused=True)

    @pytest.mark.parametrize(
        "change",
        [
            {"mode": "monolithic"},
            {"kvm": False},
            {"arch": "aarch64"},
            {"daemons": ORDER.daemons[:1]},
            {"stamps": (("/etc/libvirt/qemu.conf", 1, 2),)},
            {"failed": ("virtqemud",)},
        ],
    )
    def test_another_order(self, change: Dict[str, Any], record: Path) -> None:
        self.write(record)
        assert check.reuse(ORDER._replace(**change)) is None

    def test_a_higher_level(self, record: Path) -> None:
        self.write(record, ORDER._replace(level="daemons"), PASSED._replace(level="daemons"))
        assert check.reuse(ORDER) is None

    @pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"check": {}, "order": []}'])
    def test_anything_else_is_none(self, text: str, record: Path) -> None:
        record.write_text(text)
        assert check.reuse(ORDER) is None

    def test_what_is_checked_on_demand_is_no_part_of_it(self, record: Path) -> None:
        wide = ORDER._replace(networks=("default",), pools={"default": "/srv"})
        made = PASSED._replace(networks=("default",), pools=("default",))
        self.write(record, wide.as_usual(), made)
        assert check.reuse(ORDER) == PASSED._replace(reused=True)
        assert check.reuse(wide) is None

    def test_forgotten(self, record: Path) -> None:
        assert check.reuse(ORDER) is None
        self.write(record)
        check.forget()
        assert check.reuse(ORDER) is None
        check.forget()


class TestEndpoints:
    LISTENING = [unit for unit in units.UNITS if unit.endswith(".socket")]

    def test_modular(self) -> None:
        found = {each.name: each.driver for each in endpoints("modular", self.LISTENING, True)}
        assert found.pop("virtproxyd") == "qemu"
        assert found.pop("virtlogd") is None and found.pop("virtlockd") is None
        assert sorted(found) == sorted(units.daemon(driver).name for driver in units.DRIVERS)
        assert found["virtstoraged"] == "storage"

    def test_monolithic(self) -> None:
        found = [tuple(each) for each in endpoints("monolithic", self.LISTENING, True)]
        assert found[0] == ("libvirtd", "/run/libvirt/libvirt-sock", "qemu")
        assert [name for name, *_ in found[1:]] == ["virtlockd", "virtlogd"]

    def test_only_those_that_listen(self) -> None:
        listening = ["virtstoraged.socket", "virtproxyd.socket", "virtlogd.socket"]
        found = {each.name: each.driver for each in endpoints("modular", listening, True)}
        assert found == {"virtstoraged": "storage", "virtproxyd": "storage", "virtlogd": None}

    def test_without_the_binding_all_are_pinged(self) -> None:
        found = endpoints("modular", self.LISTENING, False)
        assert len(found) == 10 and {each.driver for each in found} == {None}


class TestPlan:
    def make(self, section: Dict[str, Any], **changes: Any) -> plan.Plan:
        host = model_hosts.fresh_el9()._replace(
            **dict({"means": MEANS, "kvm": Kvm(True)}, **changes)
        )
        return plan.make(model_hosts.config(**section), host)

    def test_by_default_a_guest(self) -> None:
        made = self.make({})
        assert (made.level, made.warnings, made.fault) == ("guest", (), "")

    def test_a_level_that_is_less_than_the_default_warns(self) -> None:
        made = self.make({}, means=Means("x86_64", False))
        assert made.level == "daemons" and "python3-libvirt" in made.warnings[0]

    def test_a_guest_that_is_asked_for_and_impossible(self) -> None:
        with pytest.raises(NoPlan, match="kvmhost.check: guest is not possible"):
            self.make({"check": "guest"}, means=Means("x86_64", False))

    @pytest.mark.parametrize(
        "policy, warnings, faults", [("warn", 1, 0), ("require", 0, 1), ("ignore", 0, 0)]
    )
    def test_no_kvm(self, policy: str, warnings: int, faults: int) -> None:
        made = self.make({"kvm": policy}, kvm=Kvm(False, "because"))
        assert (len(made.warnings), bool(made.fault)) == (warnings, bool(faults))
        assert all("because" in text for text in made.warnings)
        assert not made.fault or made.fault.startswith("kvmhost.kvm: require: ")

    def test_an_images_tree_is_not_judged(self) -> None:
        made = self.make({"kvm": "require", "check": "guest"}, running=False, kvm=Kvm(False))
        assert (made.level, made.warnings, made.fault) == (None, (), "")

    def test_a_stale_key_is_renamed(self) -> None:
        made = self.make({}, secret_key=SecretKey("no", (), PATH + ".stale-1"))
        assert made.key_aside == PATH + ".stale-1"
        assert made.changed[-1].startswith(f"rename {PATH}, which this machine can't decrypt, to ")

    def test_a_stale_key_with_secrets_is_an_error(self) -> None:
        with pytest.raises(NoPlan, match="uuid.xml"):
            self.make({}, secret_key=SecretKey("no", ("uuid.xml",), PATH + ".stale-1"))

    def test_a_stale_key_that_nobody_needs_stays(self) -> None:
        section = {"libvirt": {"mode": "modular", "drivers": ["qemu"]}}
        made = self.make(section, secret_key=SecretKey("no", ("uuid.xml",), PATH + ".stale-1"))
        assert made.key_aside is None

    def test_services_that_failed_for_want_of_the_key_are_reset(self) -> None:
        host = model_hosts.fresh_el9()
        failed = model_hosts.with_units(dict(host.units), ["virtsecretd.service"], active="failed")
        section = {"libvirt": {"mode": "modular"}}
        key = SecretKey("no", (), PATH + ".stale-1")
        assert "virtsecretd.service" in self.make(section, units=failed, secret_key=key).reset


class Ended(NamedTuple):
    """As child.Outcome, made up."""

    result: Any = None
    problems: Tuple[str, ...] = ()
    said: Tuple[Any, ...] = ()
    overdue: bool = False


class TestOnDemand:
    """What becomes of what the child says. That it does say so is for the hosts."""

    WIDE = ORDER._replace(
        networks=("default",), pools={"default": "/srv/a", "vms": "/srv/b"},
        daemons=(*ORDER.daemons, Endpoint("virtstoraged", "/y", "storage")),
    )  # fmt: skip
    ANSWERS = tuple({"daemon": daemon.name, "problem": ""} for daemon in WIDE.daemons)
    FINE = {"accelerator": "kvm", "problems": [], "pools": []}

    @pytest.fixture
    def calls(self, record: Path, monkeypatch: pytest.MonkeyPatch) -> List[Any]:
        """What the children are told. The first one ends as ``self.ended`` says."""
        told: List[Any] = []

        def call(_module: str, function: str, order: Any, seconds: float) -> Ended:
            told.append((function, order))
            return self.ended if function == "prove" else Ended([])

        monkeypatch.setattr("cc_kvmhost.virt.child.call", call)
        monkeypatch.setattr(check.failure, "details", lambda *_: ["active"])
        return told

    def run(self, ended: Ended, order: Order = WIDE) -> Tuple[Check, List[str]]:
        self.ended = ended
        manager = mock.Mock()
        manager.units = lambda names: {name: Unit(name, active="active") for name in names}
        return check.run(manager, order)

    def test_all_is_well(self, calls: List[Any], record: Path) -> None:
        made, problems = self.run(Ended(self.FINE, said=self.ANSWERS))
        assert problems == [] and made.passed
        assert (made.networks, made.pools) == (("default",), ("default", "vms"))
        ((function, order),) = calls
        assert function == "prove" and order["guest"]["networks"] == ("default",)
        pools = order["pools"]
        assert (pools["daemon"], pools["names"]) == ("virtstoraged", ["default", "vms"])
        assert pools["volume"] == order["guest"]["name"] + ".volume"
        # The next run reuses what it needs of it, and asks for no NIC.
        assert check.reuse(ORDER._replace(daemons=self.WIDE.daemons)) is not None

    def test_nothing_of_it_without_a_word(self, calls: List[Any], record: Path) -> None:
        made, _ = self.run(Ended(dict(self.FINE, pools=None), said=self.ANSWERS), ORDER)
        assert made.passed and (made.networks, made.pools) == ((), ())
        ((_, order),) = calls
        assert order["guest"]["networks"] == () and order["pools"] is None

    def test_in_monolithic_mode_it_is_libvirtd(self, calls: List[Any], record: Path) -> None:
        daemons = (Endpoint("libvirtd", "/x", "qemu"),)
        ended = Ended(self.FINE, said=({"daemon": "libvirtd", "problem": ""},))
        self.run(ended, self.WIDE._replace(mode="monolithic", daemons=daemons))
        assert calls[0][1]["pools"]["daemon"] == "libvirtd"

    @pytest.mark.parametrize(
        "ended, text",
        [
            (
                Ended(dict(FINE, pools=["a volume in pool vms: full"]), said=ANSWERS),
                "a volume in pool vms: full; see 'journalctl -u virtstoraged.service -b'",
            ),
            (
                Ended(said=(*ANSWERS, {"pool": "default"}, {"pool": "vms"}), overdue=True),
                "a volume in pool vms: not done within 60 s; see 'journalctl -u virtstoraged",
            ),
            (Ended(dict(FINE, pools=None), said=ANSWERS), "the pools were not checked; see "),
            (Ended(problems=("it broke",)), "it broke"),
        ],
    )
    def test_what_is_wrong(self, ended: Ended, text: str, calls: List[Any], record: Path) -> None:
        made, problems = self.run(ended)
        assert not made.passed and len(problems) == 1 and text in problems[0]
        assert not record.exists()

    def test_what_is_left_is_removed(self, calls: List[Any], record: Path) -> None:
        self.run(Ended(said=(*self.ANSWERS, {"pool": "vms"}), overdue=True))
        function, order = calls[1]
        assert (function, order["directories"]) == ("clear", ["/srv/a", "/srv/b"])
        assert order["daemon"].name == "virtqemud"


class TestReport:
    BASE = Report("ok", "modular", "why", units={"a": {}}, kvm=Kvm(True)._asdict())

    @pytest.mark.parametrize(
        "made, words",
        [
            (PASSED, "KVM can be used, a guest ran by KVM (checked in 12 ms)"),
            (
                PASSED._replace(reused=True),
                "a guest ran by KVM (checked in 12 ms by an earlier run)",
            ),
            (
                PASSED._replace(networks=("a", "b"), pools=("c",)),
                "a guest ran by KVM with a NIC on a, b, a volume was made in c (checked in 12 ms)",
            ),
            (
                PASSED._replace(level="daemons", accelerator=None),
                "all daemons answer (checked in 12 ms)",
            ),
            (PASSED._replace(level="sockets", accelerator=None), "all sockets can be reached"),
        ],
    )
    def test_its_summary_says_how_far_the_check_went(self, made: Check, words: str) -> None:
        assert words in self.BASE._replace(check=made._asdict()).summary()

    def test_changes_that_are_kept(self) -> None:
        report = Report("failed", "modular", "why", ("a", "b"), errors=("x",), changes_kept=True)
        assert report.summary() == "failed (2 changes are kept): x"
        assert report._replace(changed=("a",)).summary() == "failed (1 change is kept): x"
