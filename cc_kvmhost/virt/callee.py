"""The child's side of child.py: carries one order out and writes the answer.

It imports little, because whoever waits for a check waits for the imports too.
"""

import importlib
import json
import os
import sys
import threading
from typing import Any

from ..errors import KvmhostError


def main() -> None:
    """Be the child: read one order, carry it out, write the result."""
    module, function, argument = json.loads(sys.stdin.buffer.readline().decode())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Whatever C code or a stray print writes must not get between the lines of the answer.
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
        import traceback

        traceback.print_exc()
        sys.stderr.flush()  # up to Python 3.8 it is buffered unless it is a terminal
        os._exit(70)
    # Skip exit handlers: they would wait for a thread that hangs in a call.
    os._exit(0)


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(71)
