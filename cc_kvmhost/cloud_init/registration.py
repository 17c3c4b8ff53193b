"""Registers kvmhost with cloud-init: the module in its module list, the section in its schema.

Both are derived from files that other packages own and replace. So register() may run at any time,
and brings them up to date.
"""

import os
from functools import partial
from typing import List, Tuple

from .. import files
from ..files import inside
from . import module_list, schema
from .changes import CLOUD_DIR, Change, collected, locked, make


def check(root: str = "/") -> Tuple[str, ...]:
    """What register() would change; empty if the registration is up to date."""
    return tuple(change.why for change in _missing(root))


def register(root: str = "/") -> Tuple[str, ...]:
    """Put kvmhost into cloud-init's module list and schema; returns the changes."""
    with locked(root):
        return make(_missing(root))


def unregister(root: str = "/") -> Tuple[str, ...]:
    """Undo register(), to the byte; returns the changes. Without cloud-init there is nothing to do."""
    if not os.path.isdir(inside(root, CLOUD_DIR)):
        return ()
    with locked(root):
        # First, even if the schema can't be undone: cloud-init warns of a listed module that is gone.
        changed = make(module_list.without_entry(root)) + make(schema.without_section(root))
        for path in [module_list.own_cfg(root)] + schema.paths(root):
            files.remove(path + schema.ORIGINAL)
            files.remove(path + files.TEMPORARY)
    return changed


def _missing(root: str) -> List[Change]:
    """What register() has to change; all problems are raised before any change is made."""
    # The schema first: if we are killed in between, a known section that does not run does no harm.
    known, listed = collected(
        [partial(schema.with_section, root), partial(module_list.with_entry, root)]
    )
    return known + listed
