"""Pinging a daemon without libvirt's binding. The tests on hosts ask real daemons."""

import socket
import threading
from pathlib import Path
from typing import Any, List

import pytest

from cc_kvmhost.virt import daemons
from cc_kvmhost.virt.daemons import Endpoint

PONG = bytes.fromhex(
    "0000001c 6b656570 00000001 00000002 00000002 00000000 00000000".replace(" ", "")
)


class Server:
    """A server that answers one client with these bytes, in two parts, and records what it received."""

    def __init__(self, path: Path, answer: bytes) -> None:
        self.received = b""
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(1)
        self._answer = answer
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        client, _ = self._listener.accept()
        with client, self._listener:
            self.received = client.recv(100)
            client.sendall(self._answer[:5])
            client.sendall(self._answer[5:])


class TestPing:
    def test_a_pong(self, tmp_path: Path) -> None:
        server = Server(tmp_path / "sock", PONG)
        daemons.ping(str(tmp_path / "sock"), 5)
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
            daemons.ping(str(tmp_path / "sock"), 5)

    def test_nobody(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            daemons.ping(str(tmp_path / "sock"), 5)

    def test_silence(self, tmp_path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(tmp_path / "sock"))
            listener.listen(1)
            with pytest.raises(socket.timeout):
                daemons.ping(str(tmp_path / "sock"), 0.1)


def test_wake_says_each(tmp_path: Path) -> None:
    Server(tmp_path / "a", PONG)
    said: List[Any] = []
    both = [Endpoint("a", str(tmp_path / "a")), Endpoint("b", str(tmp_path / "b"))]
    daemons.wake(both, lambda daemon, problem: said.append((daemon.name, problem)))
    assert sorted(said) == [("a", ""), ("b", f"{tmp_path}/b: No such file or directory")]


def test_uri() -> None:
    daemon = Endpoint("virtqemud", "/run/libvirt/virtqemud-sock", "qemu")
    assert daemons.uri(daemon) == "qemu+unix:///system?socket=/run/libvirt/virtqemud-sock"
