"""What libvirt's own virt-host-validate finds on this host, where it is installed.

It checks control groups, IOMMU and secure guests. Its findings about KVM are left out, because kvm.py
says in more detail why KVM can't be used. Source: virt-host-validate(1).
"""

import os
import re
import subprocess
from typing import List

_COMMAND = ("virt-host-validate", "qemu")
_SECONDS = 10.0
_FINDING = re.compile(
    r"^\s*QEMU: Checking (?P<what>.*?)\s*: (?:WARN|FAIL)(?: \((?P<why>.*)\))?\s*$"
)
_KVM = ("hardware virtualization", "/dev/kvm")


def findings() -> List[str]:
    """Each warning and failure as a sentence; empty if the program is missing."""
    try:
        done = subprocess.run(
            _COMMAND,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=dict(os.environ, LC_ALL="C"),
            timeout=_SECONDS,
        )
    except FileNotFoundError:
        return []
    except subprocess.TimeoutExpired:
        return [f"virt-host-validate: not done within {_SECONDS:g} s"]
    return parse(done.stdout.decode(errors="replace"))


def parse(output: str) -> List[str]:
    found = filter(None, map(_FINDING.match, output.splitlines()))
    return [
        f"virt-host-validate: {each.group('what')}: {each.group('why') or 'failed'}"
        for each in found
        if not any(word in each.group("what") for word in _KVM)
    ]
