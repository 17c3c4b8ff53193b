"""A function called in a process of its own, which is killed at its deadline.

A call to a libvirt daemon that hangs does not return: the client blocks in C, and libvirt's own
keepalive wants an event loop. So nothing here calls libvirt in cloud-init's process. A child of
the same interpreter does, blocks as long as it likes, and is killed when its time is over. What a
client has left at a daemon, such as a guest that was started with VIR_DOMAIN_START_AUTODESTROY, ends
with the client's connection.

The function is named by its module and takes two arguments: a JSON value, and ``say``, which it may
call with JSON values on its way; the last ones tell where a child was that did not come back. It
returns a JSON value, or raises KvmhostError for what it finds wrong::

    outcome = child.call("cc_kvmhost.virt.guest", "run", {"name": ...}, seconds=60)
    if outcome.problems: ...

The child does not outlive its parent, also where that is killed: its standard input ends then.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import traceback
from typing import Any, Callable, List, NamedTuple, Tuple

from ..errors import KvmhostError

#: Told to a function: where to say how far it is.
Say = Callable[[Any], None]

#: Seconds to wait for a child that was killed: longer, and it hangs in the kernel.
_SECONDS_TO_DIE = 5.0

#: The child's first lines. It gets the very package that its parent runs, wherever that lies;
#: -I keeps everything else off its path that is not the interpreter's own. Bytecode is not written
#: by a process that may be killed any time.
_START = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("cc_kvmhost", sys.argv[1])
sys.modules["cc_kvmhost"] = package = importlib.util.module_from_spec(spec)
spec.loader.exec_module(package)
from cc_kvmhost.virt import child
child.main()
"""
_PACKAGE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "__init__.py")


class Outcome(NamedTuple):
    """How a call ended.

    ``result``: what the function returned; None if it did not. ``problems``: why it did not, empty
    if it did. ``said``: what it said, in order. ``overdue``: it was killed at its deadline; then
    ``problems`` is empty too, since only the caller can tell what was waited for.
    """

    result: Any
    problems: Tuple[str, ...] = ()
    said: Tuple[Any, ...] = ()
    overdue: bool = False


def call(module: str, function: str, argument: Any, seconds: float) -> Outcome:
    """Call a function in a child and wait for it, at most so many seconds."""
    order, order_end = os.pipe()
    try:
        try:
            child = subprocess.Popen(
                [sys.executable, "-I", "-B", "-c", _START, _PACKAGE],
                stdin=order,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd="/",
                start_new_session=True,  # a group of its own, killed as a whole
            )
        finally:
            os.close(order)
        return _wait(child, order_end, [module, function, argument], seconds)
    finally:
        os.close(order_end)


def _wait(child: Any, order_end: int, order: List[Any], seconds: float) -> Outcome:
    overdue = False
    output = errors = b""
    try:
        _write(order_end, json.dumps(order).encode() + b"\n")
        output, errors = child.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        overdue = True
    finally:
        _kill(child)
    if overdue:
        try:
            output, errors = child.communicate(timeout=_SECONDS_TO_DIE)
        except subprocess.TimeoutExpired as error:  # it hangs in the kernel: leave it to that
            output = error.output or b""
    said: List[Any] = []
    for line in output.splitlines():
        kind, value = _parse(line)
        if kind == "said":
            said.append(value)
        elif kind == "result":
            return Outcome(value, (), tuple(said))
        elif kind == "problems":
            return Outcome(None, tuple(value), tuple(said))
    if overdue:
        return Outcome(None, (), tuple(said), True)
    last = errors.decode(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
    text = f"{order[0]}.{order[1]} ended with exit status {child.returncode}: {last[0]}"
    return Outcome(None, (text,), tuple(said))


def _write(order_end: int, line: bytes) -> None:
    try:
        while line:
            line = line[os.write(order_end, line) :]
    except BrokenPipeError:  # it is dead already; what it said last tells why
        pass


def _kill(child: Any) -> None:
    if child.returncode is None:  # not waited for yet: its number is still its own
        os.killpg(child.pid, signal.SIGKILL)


def _parse(line: bytes) -> Tuple[str, Any]:
    try:
        kind, value = json.loads(line.decode())
        return str(kind), value
    except ValueError:  # cut off by the kill, or printed by somebody else
        return "", None


def main() -> None:
    """The child: read one order, carry it out, write what comes of it."""
    module, function, argument = json.loads(sys.stdin.buffer.readline().decode())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # What C code or a stray print writes must not end up between the lines of the answer.
    answers = os.fdopen(os.dup(1), "wb", 0)
    os.dup2(2, 1)
    lock = threading.Lock()

    def answer(kind: str, value: Any) -> None:
        with lock:
            answers.write(json.dumps([kind, value]).encode() + b"\n")

    try:
        result = getattr(importlib.import_module(module), function)(
            argument, lambda value: answer("said", value)
        )
        answer("result", result)
    except KvmhostError as error:
        answer("problems", error.problems)
    except Exception:
        traceback.print_exc()
        sys.stderr.flush()  # up to Python 3.8 it is buffered where it is no terminal
        os._exit(70)
    # Not by way of exit handlers: a thread may still hang in a call.
    os._exit(0)


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(71)
