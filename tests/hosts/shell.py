"""Boots a host with the example's user-data and gives a shell in it. The host is gone afterwards."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nspawn
import roots
from host import Host, has_kvm
from nspawn import HarnessError

EXAMPLE = Path(__file__).parents[2] / "examples" / "kvmhost.yaml"


def main(system: str) -> int:
    """Run the shell; returns its exit status, 0 on a terminal; 2 for an unknown system."""
    if system not in roots.SYSTEMS:
        print(f"no host {system!r}; there are: {', '.join(roots.SYSTEMS)}", file=sys.stderr)
        return 2
    try:
        roots.root(system, lambda text: print(text, flush=True))
        with Host(system, user_data=EXAMPLE.read_text(), kvm=has_kvm()) as host:
            host.boot()
            print(f"{system} is up; try: kvmhost status. Leave with: exit", flush=True)
            enter = ["nsenter", f"--target={host.leader}", *"-m -u -i -n -p -C -r -w".split()]
            status = subprocess.run([*enter, "--", "bash", "-l"], env=nspawn.ENVIRONMENT).returncode
            # Somebody who leaves after a command that failed has not failed: make would say so.
            return 0 if sys.stdin.isatty() else status
    except (HarnessError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:] or ["el10"]))
