"""Calls a function in a child process, and kills the child at its deadline.

A call to a libvirt daemon that hangs never returns: the client blocks in C, and libvirt's own
keepalive needs an event loop. So cloud-init's process never calls libvirt. A child of the same
interpreter calls it, and is killed when its time is over. When the child's connection closes, the
daemon ends what belongs to it, such as a guest that was started with
VIR_DOMAIN_START_AUTODESTROY.

The function is given by the name of its module and its own. It takes a JSON value and ``say``, a
function that it may call with JSON values to report progress: if the child is killed, they show how
far it came. It returns a JSON value, or raises KvmhostError::

    outcome = child.call("cc_kvmhost.virt.guest", "run", {"name": ...}, seconds=60)
    if outcome.problems: ...

The child's side is callee.py. The child does not outlive its parent, even if the parent is killed: the
child's standard input then ends.
"""

import json
import os
import signal
import subprocess
import sys
from typing import Any, Callable, List, NamedTuple, Tuple

#: Reports progress to the parent.
Say = Callable[[Any], None]

#: Seconds to wait for a killed child; one that is still there hangs in the kernel.
_SECONDS_TO_DIE = 5.0

#: The child's first lines. They tell Python where the parent has the package, because -I leaves only
#: the interpreter's own directories on the path, and leave out its __init__, which is for cloud-init.
#: -B: a process that may be killed at any time must not write bytecode.
_START = """
import sys, types
package = sys.modules["cc_kvmhost"] = types.ModuleType("cc_kvmhost")
package.__path__ = [sys.argv[1]]
from cc_kvmhost.virt import callee
callee.main()
"""
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Outcome(NamedTuple):
    """How a call ended.

    ``result``: what the function returned; None if it failed. ``problems``: why it failed; empty if it
    did not. ``said``: its reports of progress, in order. ``overdue``: it was killed at its deadline;
    then ``problems`` is empty, because only the caller knows what the function waited for.
    """

    result: Any
    problems: Tuple[str, ...] = ()
    said: Tuple[Any, ...] = ()
    overdue: bool = False


def call(module: str, function: str, argument: Any, seconds: float) -> Outcome:
    """Call a function in a child and wait for it, at most this long."""
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
        except subprocess.TimeoutExpired as error:  # it hangs in the kernel: leave it there
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
    except BrokenPipeError:  # it has died; its output tells why
        pass


def _kill(child: Any) -> None:
    if child.returncode is None:  # not reaped yet, so the number is still its own
        os.killpg(child.pid, signal.SIGKILL)


def _parse(line: bytes) -> Tuple[str, Any]:
    try:
        kind, value = json.loads(line.decode())
        return str(kind), value
    except ValueError:  # cut off by the kill, or not ours
        return "", None
