"""Which guests run: by libvirt's files, and by processes that are there."""

import subprocess
import sys
from pathlib import Path
from typing import Any, Iterator, List

import pytest

from cc_kvmhost.virt import guests
from cc_kvmhost.virt.guest import PREFIX
from cc_kvmhost.virt.guests import Guest


class Machine:
    """libvirt's state directories, and processes."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._processes: List[Any] = []

    def start(self, *arguments: str) -> int:
        code = "import time; print(flush=True); time.sleep(60)"
        process = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE)
        assert process.stdout
        process.stdout.readline()  # it has its own arguments by now
        self._processes.append(process)
        return process.pid

    def write(self, driver: str, name: str, pid: Any) -> None:
        (self._root / driver).mkdir(exist_ok=True)
        (self._root / driver / (name + ".xml")).write_text("<domstatus/>")
        if pid is not None:
            (self._root / driver / (name + ".pid")).write_text(str(pid))

    def end(self) -> None:
        for process in self._processes:
            process.kill()
            process.communicate()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    monkeypatch.setattr(guests, "RUN", f"{tmp_path}/")
    machine = Machine(tmp_path)
    yield machine
    machine.end()


class TestRunning:
    def test_none(self, machine: Machine) -> None:
        assert guests.running() == ()

    @pytest.mark.parametrize(
        "name, argument",
        [
            ("db", "guest=db,debug-threads=on"),
            ("db", "db"),
            ("a,b", "guest=a,,b,debug-threads=on"),
            (".hidden", "guest=.hidden"),
            ("two.xml", "guest=two.xml"),
            ("\u00fc", "guest=\u00fc"),
        ],
    )
    def test_of_qemu(self, name: str, argument: str, machine: Machine) -> None:
        machine.write("qemu", name, machine.start("-name", argument))
        assert guests.running() == (Guest(name),)

    def test_of_lxc(self, machine: Machine) -> None:
        machine.write("lxc", "box", machine.start("--name", "box", "--console", "21"))
        machine.write("qemu", "db", machine.start("-name", "guest=db"))
        assert guests.running() == (Guest("db"), Guest("box", "lxc"))

    @pytest.mark.parametrize("pid", [None, "", "nonsense", 1 << 22])
    def test_one_that_has_ended(self, pid: Any, machine: Machine) -> None:
        machine.write("qemu", "db", pid)
        assert guests.running() == ()

    def test_one_whose_number_is_anothers_by_now(self, machine: Machine) -> None:
        machine.write("qemu", "db", machine.start("something", "else"))
        machine.write("lxc", "box", machine.start("-name", "guest=web"))
        assert guests.running() == ()

    def test_not_one_of_a_check(self, machine: Machine) -> None:
        name = PREFIX + "1234"
        machine.write("qemu", name, machine.start(f"guest={name}"))
        assert guests.running() == ()
