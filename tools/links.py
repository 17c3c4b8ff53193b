#!/usr/bin/env python3
"""Asks for each address that the documents link to; on a connected machine. The links within the tree are checked by
a unit test.

Exit status 1 if one does not answer with a page.
"""

import re
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Dict, List

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"\]\((https?://[^)\s]+)\)|^\[[^]]+\]: (https?://\S+)$", re.M)


def links(root: Path = ROOT) -> Dict[str, List[str]]:
    """Each address, and the documents that link to it."""
    found: Dict[str, List[str]] = {}
    for path in [*sorted(root.glob("*.md")), *sorted((root / "docs").glob("*.md"))]:
        for match in LINK.finditer(path.read_text(encoding="utf-8")):
            address = match.group(1) or match.group(2)
            found.setdefault(address, []).append(path.relative_to(root).as_posix())
    return found


def problem(address: str) -> str:
    """Why an address has no page; "" if it has."""
    # Some servers refuse a client that has no name.
    request = urllib.request.Request(address, headers={"User-Agent": "cc_kvmhost tools/links.py"})
    try:
        with urllib.request.urlopen(request, timeout=30):
            return ""
    except urllib.error.HTTPError as error:
        return f"{error.code} {error.reason}"
    except OSError as error:
        return str(getattr(error, "reason", error))


def main() -> int:
    wrong = 0
    for address, documents in links().items():
        found = problem(address)
        wrong += bool(found)
        print(f"{address}: {found or 'ok'}" + (f" ({', '.join(documents)})" if found else ""))
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
