"""This instance's own configuration, as cloud-init merged it."""

from typing import Any

from ..config import KEY
from ..errors import KvmhostError


def section() -> Any:
    """The kvmhost section that cloud-init would give to the module.

    :raises KvmhostError: cloud-init is not here, has not run, or was given no section
    """
    try:
        from cloudinit import stages
    except ImportError as error:
        raise KvmhostError(
            [f"no FILE was given, and this Python has no cloud-init: {error}"]
        ) from error
    init = stages.Init(ds_deps=[])
    init.read_cfg()
    try:
        init.fetch(existing="trust")
    except Exception as error:  # cloud-init raises a class of its own per version
        raise KvmhostError(
            [f"no FILE was given, and cloud-init has no instance here: {error}"]
        ) from error
    if KEY not in init.cfg:
        raise KvmhostError([f"this instance's configuration has no {KEY} key; name a FILE"])
    return init.cfg[KEY]
