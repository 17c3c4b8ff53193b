"""This instance's own configuration, as cloud-init merged it."""

import os
from typing import Any

from ..config import KEY
from ..errors import KvmhostError


def section() -> Any:
    """The kvmhost section that cloud-init would give to the module.

    :raises KvmhostError: there is no cloud-init, it has not run, or its configuration has no section
    """
    try:
        from cloudinit import stages
    except ImportError as error:
        raise KvmhostError(
            [f"no FILE was given, and this Python has no cloud-init: {error}"]
        ) from error
    init = stages.Init(ds_deps=[])
    # Load only what cloud-init has stored: its fetch() would look for a datasource and write files.
    init.datasource = stages.Init(ds_deps=[])._restore_from_cache()
    if init.datasource is None:
        path = init.paths.get_ipath_cur("obj_pkl")
        if not os.path.lexists(path):
            reason = f"there is no {path}"
        elif not os.access(path, os.R_OK):
            reason = f"only root can read {path}"
        else:
            reason = f"{path} can't be loaded"
        raise KvmhostError(
            [f"no FILE was given, and cloud-init tells of no instance here: {reason}; name a FILE"]
        )
    if KEY not in init.cfg:
        raise KvmhostError([f"this instance's configuration has no {KEY} key; name a FILE"])
    return init.cfg[KEY]
