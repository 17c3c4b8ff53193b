"""A call in a child process: its answer, its deadline, its end."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from cc_kvmhost.virt import child

FUNCTIONS = """
import os, signal, sys, time
from cc_kvmhost.errors import KvmhostError

def echo(argument, say):
    say({"at": "start"})
    say({"at": "end"})
    return {"argument": argument, "pid": os.getpid(), "cwd": os.getcwd(), "isolated": sys.flags.isolated}

def refuses(argument, say):
    raise KvmhostError(["one: 1", "two: 2"])

def breaks(argument, say):
    return 1 // argument

def prints(argument, say):
    print("[\\"result\\", \\"not this\\"]", flush=True)
    os.write(1, b"nor this\\n")
    return "this"

def hangs(argument, say):
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    say({"pid": os.getpid()})
    time.sleep(3600)

def leaves_a_thread(argument, say):
    import threading
    threading.Thread(target=time.sleep, args=(3600,)).start()
    return "done"

def dies(argument, say):
    say("before")
    os.kill(os.getpid(), signal.SIGSEGV)

def loaded(argument, say):
    return sorted(name for name in sys.modules if "." not in name)
"""


@pytest.fixture
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of functions to call, found by the child although it is no part of the package."""
    (tmp_path / "functions.py").write_text(FUNCTIONS)
    start = child._START.replace(
        "callee.main()", f"sys.path.insert(0, {str(tmp_path)!r})\ncallee.main()"
    )
    monkeypatch.setattr(child, "_START", start)


def call(function: str, argument: Any = None, seconds: float = 20) -> child.Outcome:
    return child.call("functions", function, argument, seconds)


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().split(") ")[1].startswith("Z")


@pytest.mark.usefixtures("functions")
class TestCall:
    def test_the_answer_and_what_was_said_before(self) -> None:
        done = call("echo", {"ä": [1, None]})
        assert done.said == ({"at": "start"}, {"at": "end"})
        assert (done.problems, done.overdue) == ((), False)
        assert done.result.pop("pid") != os.getpid()
        assert done.result == {"argument": {"ä": [1, None]}, "cwd": "/", "isolated": 1}

    def test_an_argument_larger_than_a_pipe(self) -> None:
        assert call("echo", "x" * 300000).result["argument"] == "x" * 300000

    def test_problems_are_handed_over(self) -> None:
        assert call("refuses") == child.Outcome(None, ("one: 1", "two: 2"))

    def test_a_fault_of_our_own_is_a_problem_with_its_last_line(self) -> None:
        done = call("breaks", 0)
        assert done.result is None and len(done.problems) == 1
        assert "functions.breaks ended with exit status 70" in done.problems[0]
        assert "ZeroDivisionError" in done.problems[0]

    def test_a_child_that_dies_is_a_problem(self) -> None:
        done = call("dies")
        assert done.said == ("before",)
        assert "functions.dies ended with exit status -11" in done.problems[0]

    def test_what_is_printed_is_no_answer(self) -> None:
        assert call("prints").result == "this"

    def test_a_thread_that_hangs_does_not_keep_it(self) -> None:
        assert call("leaves_a_thread", seconds=10) == child.Outcome("done")

    def test_killed_at_its_deadline(self) -> None:
        start = time.monotonic()
        done = call("hangs", seconds=1)
        assert time.monotonic() - start < 3
        assert done.overdue and not done.problems and done.result is None
        assert is_gone(done.said[0]["pid"])

    def test_nothing_is_left_open(self) -> None:
        before = sorted(os.listdir("/proc/self/fd"))
        call("echo")
        call("hangs", seconds=0.5)
        assert sorted(os.listdir("/proc/self/fd")) == before

    def test_nothing_heavy_is_loaded(self) -> None:
        heavy = {"libvirt", "jsonschema", "yaml", "pystemd", "distro", "cloudinit"}
        assert not heavy.intersection(call("loaded").result)


@pytest.mark.usefixtures("functions")
def test_it_ends_with_its_parent() -> None:
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            textwrap.dedent(f"""
                import sys
                sys.path[:] = {sys.path!r}
                from cc_kvmhost.virt import child
                child._START = {child._START!r}.replace(
                    "callee.main()", "print(__import__('os').getpid(), file=sys.stderr, flush=True); callee.main()")
                import subprocess
                start = subprocess.Popen
                def popen(*args, **options):
                    options["stderr"] = None
                    return start(*args, **options)
                subprocess.Popen = popen
                child.call("functions", "hangs", None, 3600)
            """),
        ],
        stderr=subprocess.PIPE,
        universal_newlines=True,
    )
    assert parent.stderr
    pid = int(parent.stderr.readline())
    time.sleep(0.3)
    assert not is_gone(pid)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 5
    while not is_gone(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert is_gone(pid)
    parent.stderr.close()
