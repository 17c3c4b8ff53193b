"""The schema in an editor: what the real yaml-language-server says of a cloud-config file."""

import itertools
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional

import pytest

import cloud_init
from cc_kvmhost import cli

VERSION = "2.0.0"
MODELINE = "# yaml-language-server: $schema=cloud-config.schema.json\n"


@pytest.fixture(scope="module")
def program(tmp_path_factory: Any) -> Path:
    """The server, from npm."""
    directory = cloud_init.cache() / f"yaml-language-server-{VERSION}"
    with cloud_init._made(directory) as work:
        if work:
            install = ["npm", "install", "--silent", "--no-audit", "--no-fund"]
            subprocess.run([*install, f"yaml-language-server@{VERSION}"], cwd=str(work), check=True)
    return directory / "node_modules/.bin/yaml-language-server"


class Server:
    """A client of the language server protocol, as small as it can be."""

    def __init__(self, program: Path, directory: Path) -> None:
        self._process = subprocess.Popen(
            [str(program), "--stdio"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._numbers = itertools.count(1)
        self._watchdog = threading.Timer(60, self._process.kill)
        self._watchdog.start()
        self.directory = directory
        self.call("initialize", processId=os.getpid(), rootUri=directory.as_uri(), capabilities={})
        self._send("initialized", {})

    def close(self) -> None:
        self._watchdog.cancel()
        self._process.kill()
        self._process.wait()

    def _send(self, method: str, params: Any, number: Optional[int] = None) -> None:
        message: Dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params}
        if number is not None:
            message["id"] = number
        self._write(message)

    def _write(self, message: Dict[str, Any]) -> None:
        assert self._process.stdin
        body = json.dumps(message).encode()
        self._process.stdin.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        self._process.stdin.flush()

    def _receive(self) -> Dict[str, Any]:
        """The next message; what the server asks of us is answered with null."""
        assert self._process.stdout
        while True:
            length = 0
            for line in iter(self._process.stdout.readline, b"\r\n"):
                assert line, "the server ended, or said nothing for a minute"
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            message: Dict[str, Any] = json.loads(self._process.stdout.read(length))
            if "id" not in message or "method" not in message:
                return message
            self._write({"jsonrpc": "2.0", "id": message["id"], "result": None})

    def call(self, method: str, **params: Any) -> Any:
        number = next(self._numbers)
        self._send(method, params, number)
        while True:
            message = self._receive()
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]

    def open(self, text: str) -> List[str]:
        """Open a file with this text; returns what is wrong with it."""
        self.uri = (self.directory / f"file-{next(self._numbers)}.yaml").as_uri()
        document = {"uri": self.uri, "languageId": "yaml", "version": 1, "text": text}
        self._send("textDocument/didOpen", {"textDocument": document})
        while True:
            message = self._receive()
            if message.get("method") == "textDocument/publishDiagnostics":
                if message["params"]["uri"] == self.uri:
                    return [each["message"] for each in message["params"]["diagnostics"]]

    def at(self, method: str, line: int, character: int) -> Any:
        place = {"line": line, "character": character}
        return self.call("textDocument/" + method, textDocument={"uri": self.uri}, position=place)


@pytest.fixture(scope="module", params=["22.4", "25.1", "26.2"])
def server(request: Any, program: Path, tmp_path_factory: Any) -> Iterator[Server]:
    """With the schema that `kvmhost schema --cloud-config` makes of a cloud-init's."""
    directory = tmp_path_factory.mktemp("editor")
    own = cloud_init.package(request.param) / cloud_init.SCHEMA
    made = subprocess.run(
        [sys.executable, "-m", "cc_kvmhost", "schema", "--cloud-config", str(own)],
        cwd=str(Path(cli.__file__).parents[1]),
        stdout=subprocess.PIPE,
        check=True,
    )
    (directory / "cloud-config.schema.json").write_bytes(made.stdout)
    server = Server(program, directory)
    yield server
    server.close()


@pytest.mark.parametrize(
    "text",
    ["kvmhost: {}\n", "kvmhost:\n", "packages: [vim]\nkvmhost: {libvirt: {mode: modular}}\n"],
)
def test_what_is_valid(server: Server, text: str) -> None:
    assert server.open("#cloud-config\n" + MODELINE + text) == []


@pytest.mark.parametrize(
    "text, words",
    [
        ("kvmhost: {timeout: 0}\n", "Value is below the minimum of 1"),
        ("kvmhost: {libvirt: {mode: modlar}}\n", '"monolithic"'),
        ("kvmhost: {typo: 1}\n", "Property typo is not allowed"),
        ("packages: 7\nkvmhost: {}\n", 'Expected "array"'),
    ],
)
def test_what_is_not(server: Server, text: str, words: str) -> None:
    problems = server.open("#cloud-config\n" + MODELINE + text)
    assert any(words in problem for problem in problems), problems


def test_completion(server: Server) -> None:
    server.open("#cloud-config\n" + MODELINE + "kvmhost:\n  libvirt:\n    mode: \n")
    offered = server.at("completion", 4, 10)
    assert {"auto", "modular", "monolithic"} <= {each["label"] for each in offered["items"]}
    server.open("#cloud-config\n" + MODELINE + "kvmhost:\n  \n")
    offered = server.at("completion", 3, 2)
    assert {"libvirt", "tuned", "units", "timeout"} <= {each["label"] for each in offered["items"]}


def test_hover(server: Server) -> None:
    server.open("#cloud-config\n" + MODELINE + "kvmhost:\n  timeout: 5\n")
    shown = server.at("hover", 3, 4)
    assert "Seconds that all start and stop jobs together may take" in str(shown["contents"])
