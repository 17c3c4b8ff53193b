"""Volume groups: what LVM's answer says of them, and LVM that does not answer."""

import json
import os
import sys
from pathlib import Path
from typing import Dict, List, Tuple

import pytest

from cc_kvmhost.errors import KvmhostError
from cc_kvmhost.virt import volume_groups
from cc_kvmhost.virt.volume_groups import Group


def printed(*groups: Tuple[str, str]) -> str:
    rows = [{"vg_name": name, "vg_attr": attributes} for name, attributes in groups]
    return json.dumps({"report": [{"vg": rows}]})


@pytest.mark.parametrize(
    ("found", "text"),
    [
        ({"vg": "wz--n-"}, ""),
        # Clustered, shared, read-only: libvirt takes them all.
        ({"vg": "wz--nc"}, ""),
        ({"vg": "rz--ns"}, ""),
        ({"vg": "wzx-n-"}, "it is exported; 'vgimport vg' takes it back"),
        ({"vg": "wz-pn-"}, "some of its physical volumes are missing"),
        ({}, "no such volume group on this host, there is none; make it with 'vgcreate vg DEVICE'"),
        ({"b": "wz--n-", "a": "wz--n-"}, "no such volume group on this host, there are: a, b;"),
    ],
)
def test_refusals(found: Dict[str, str], text: str) -> None:
    refusal = volume_groups.refusal("vg", found)
    assert text in refusal and bool(text) == bool(refusal)


def test_what_vgs_prints() -> None:
    assert volume_groups.parse(printed()) == {}
    assert volume_groups.parse(printed(("a", "wz--n-"), ("b", "wz-pn-"))) == {
        "a": "wz--n-",
        "b": "wz-pn-",
    }


class TestAsked:
    """By the real child, of a program in LVM's place."""

    @pytest.fixture(autouse=True)
    def vgs(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        (tmp_path / "driver.so").touch()
        monkeypatch.setattr(volume_groups, "_DRIVERS", ("/nowhere/*", str(tmp_path / "*.so")))
        return tmp_path / "vgs"

    def write(self, vgs: Path, *lines: str) -> None:
        vgs.write_text(f"#!{sys.executable}\nimport sys, time\n" + "\n".join(lines))
        vgs.chmod(0o755)

    def problem(self, name: str = "vg_vms") -> str:
        return volume_groups.look([name])[name].problem

    def test_nothing_runs_without_a_pool_that_wants_one(self, vgs: Path) -> None:
        self.write(vgs, f"open({str(vgs.parent / 'ran')!r}, 'w')")
        assert volume_groups.look([]) == {}
        assert not (vgs.parent / "ran").exists()

    def test_there(self, vgs: Path) -> None:
        self.write(
            vgs,
            "assert '--readonly' in sys.argv",
            "print('WARNING: something else', file=sys.stderr)",
            f"print({printed(('vg_vms', 'wz--n-'), ('other', 'wzx-n-'))!r})",
        )
        found = volume_groups.look(["vg_vms", "other", "third"])
        assert found["vg_vms"] == Group()
        assert "exported" in found["other"].problem
        assert "there are: other, vg_vms" in found["third"].problem

    @pytest.mark.parametrize(
        ("lines", "text"),
        [
            (
                ["print('a', file=sys.stderr); print('no way', file=sys.stderr); sys.exit(5)"],
                "'vgs' ends with exit status 5: no way",
            ),
            (["print('{}')"], "'vgs' ends with exit status 0: it says nothing"),
            (["print('[]')"], "'vgs' ends with exit status 0: it says nothing"),
        ],
    )
    def test_it_says_something_else(self, vgs: Path, lines: List[str], text: str) -> None:
        self.write(vgs, *lines)
        assert self.problem() == text

    def test_it_hangs(self, vgs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(volume_groups, "SECONDS", 1.5)
        self.write(vgs, "time.sleep(600)")
        assert self.problem() == "LVM does not answer within 1.5 s; see 'vgs'"

    def test_it_is_missing(self, vgs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(vgs.parent))
        assert self.problem() == "LVM is not installed; install lvm2"
        with pytest.raises(KvmhostError):
            volume_groups.ask(None, lambda _: None)

    def test_libvirts_driver_is_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(volume_groups, "_DRIVERS", ("/nowhere/*",))
        assert "install libvirt-daemon-driver-storage-logical (EL's name)" in self.problem()
