"""At home in cloud-init: kvmhost in its module list, the section in its schema.

Both are derived from files that others own and replace: register() may run at any time and brings
them up to date, check() says whether it would.
"""

import os
from functools import partial
from typing import List, Tuple

from .. import files
from ..files import inside
from . import module_list, schema
from .changes import CLOUD_DIR, Change, collected, locked, make


def check(root: str = "/") -> Tuple[str, ...]:
    """What register() would change; empty: registered, and current."""
    return tuple(change.why for change in _missing(root))


def register(root: str = "/") -> Tuple[str, ...]:
    """Put kvmhost into cloud-init's module list and schema; what was changed."""
    with locked(root):
        return make(_missing(root))


def unregister(root: str = "/") -> Tuple[str, ...]:
    """Take both back, to the byte; what was changed. No cloud-init: nothing to take back."""
    if not os.path.isdir(inside(root, CLOUD_DIR)):
        return ()
    with locked(root):
        # Whatever may ail the schema: a module that is gone must not stay listed.
        changed = make(module_list.without_entry(root)) + make(schema.without_section(root))
        for path in [module_list.own_cfg(root)] + schema.paths(root):
            files.remove(path + schema.ORIGINAL)
            files.remove(path + files.TEMPORARY)
    return changed


def _missing(root: str) -> List[Change]:
    """What register() has to change; every problem found is raised before any change is made."""
    # The schema first: killed in between, a section that is known but not run does no harm.
    known, listed = collected(
        [partial(schema.with_section, root), partial(module_list.with_entry, root)]
    )
    return known + listed
