"""Pinging a daemon without libvirt's binding. The tests on hosts ask real daemons."""

import os
import queue
import socket
import threading
import time
from pathlib import Path
from typing import Any, Dict, List

import pytest

from cc_kvmhost.virt import daemons
from cc_kvmhost.virt.daemons import Endpoint

PONG = bytes.fromhex(
    "0000001c 6b656570 00000001 00000002 00000002 00000000 00000000".replace(" ", "")
)


class Server:
    """A server that gives one client these answers, each in two parts, and then closes. It records what it received."""

    def __init__(self, path: Path, *answers: bytes, delay: float = 0) -> None:
        self.received = b""
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(1)
        self._answers, self._delay = answers, delay
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        client, _ = self._listener.accept()
        with client, self._listener:
            for answer in self._answers:
                self.received = client.recv(100)
                time.sleep(self._delay)
                client.sendall(answer[:5])
                client.sendall(answer[5:])


def ping(path: Path, seconds: float = 5) -> None:
    pinger = daemons._Pinger(str(path), seconds)
    try:
        pinger.ask()
    finally:
        pinger._stream.close()


class TestPing:
    def test_a_pong(self, tmp_path: Path) -> None:
        server = Server(tmp_path / "sock", PONG)
        ping(tmp_path / "sock")
        # Length, "keep", version 1, PING, a message, serial 0, status 0: virkeepaliveprotocol.x.
        assert server.received.hex() == "0000001c6b656570000000010000000100000002" + 16 * "0"

    @pytest.mark.parametrize(
        "answer, words",
        [
            (b"", "closed the connection"),
            (PONG[:20], "closed the connection"),
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", "not of libvirt's protocol"),
        ],
    )
    def test_anything_else(self, answer: bytes, words: str, tmp_path: Path) -> None:
        Server(tmp_path / "sock", answer)
        with pytest.raises(OSError, match=words):
            ping(tmp_path / "sock")

    def test_nobody(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            ping(tmp_path / "sock")

    def test_silence(self, tmp_path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(tmp_path / "sock"))
            listener.listen(1)
            with pytest.raises(socket.timeout):
                ping(tmp_path / "sock", 0.1)


class TestWake:
    def wake(self, *daemons_: Endpoint) -> Dict[str, List[str]]:
        said: Dict[str, List[str]] = {}
        daemons.wake(daemons_, lambda each, problem: said.setdefault(each.name, []).append(problem))
        return said

    def test_says_each_and_asks_each_twice(self, tmp_path: Path) -> None:
        Server(tmp_path / "a", PONG, PONG)
        said = self.wake(Endpoint("a", str(tmp_path / "a")), Endpoint("b", str(tmp_path / "b")))
        # In between it says what is to be known if the second answer does not come.
        assert said == {
            "a": ["", "has answered once, and is silent since", ""],
            "b": [f"{tmp_path}/b: No such file or directory"],
        }

    def test_one_that_ends_after_its_first_answer(self, tmp_path: Path) -> None:
        Server(tmp_path / "a", PONG)
        last = self.wake(Endpoint("a", str(tmp_path / "a")))["a"][-1]
        assert last.startswith(f"has answered once, and not again: {tmp_path}/a: ")

    def test_a_fault_while_one_is_asked_is_not_lost_with_its_thread(self, tmp_path: Path) -> None:
        def answered(_daemon: Endpoint, _problem: str) -> None:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            daemons.wake([Endpoint("a", str(tmp_path / "a"))], answered)

    def test_with_work_they_start_one_after_the_other(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(daemons, "_STAGGER", 10)
        said: List[str] = []
        Server(tmp_path / "a", PONG, PONG, delay=0.2)
        Server(tmp_path / "b", PONG, PONG)
        order = [Endpoint(name, str(tmp_path / name)) for name in "ab"]
        daemons.wake(order, lambda each, _problem: said.append(each.name), lambda *_: None)
        assert said[:2] == ["a", "b"]

    def test_none_waits_for_one_that_hangs(self, tmp_path: Path) -> None:
        said: queue.Queue[str] = queue.Queue()
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(tmp_path / "a"))
            listener.listen(1)
            Server(tmp_path / "b", PONG, PONG)
            order = [Endpoint(name, str(tmp_path / name)) for name in "ab"]
            threading.Thread(
                target=daemons.wake,
                args=(order, lambda each, _problem: said.put(each.name), lambda *_: None),
                daemon=True,
            ).start()
            assert said.get(timeout=10) == "b"


class TestStamps:
    def stamps(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
        real = os.stat

        def stat(name: Any, **more: Any) -> os.stat_result:
            return real(path if name == "/etc/libvirt/virtqemud.conf" else "/nowhere", **more)

        with monkeypatch.context() as patch:
            patch.setattr(os, "stat", stat)
            return daemons.stamps([Endpoint("virtqemud", "/x")], "x86_64")

    def test_an_edited_or_replaced_file_differs(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "conf"
        path.write_text("a")
        first = self.stamps(path, monkeypatch)
        assert [name for name, *_ in first] == ["/etc/libvirt/virtqemud.conf"]
        assert self.stamps(path, monkeypatch) == first
        (tmp_path / "new").write_text("a")
        (tmp_path / "new").rename(path)
        second = self.stamps(path, monkeypatch)
        assert second != first
        path.unlink()
        assert self.stamps(path, monkeypatch) == ()


def test_uri() -> None:
    daemon = Endpoint("virtqemud", "/run/libvirt/virtqemud-sock", "qemu")
    assert daemons.uri(daemon) == "qemu+unix:///system?socket=/run/libvirt/virtqemud-sock"
