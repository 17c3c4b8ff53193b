"""Which units must stop, start or be reset because others do.

Source: systemd.socket(5); systemd.unit(5), BindsTo= and StartLimitIntervalSec=.
"""

from typing import List, Mapping, Sequence, Set

from .host import Host, Unit
from .virt import units as libvirt
from .wishes import LEFT, Wish


def sockets_to_start_anew(host: Host, wishes: Mapping[str, Wish]) -> Set[str]:
    """The unreachable sockets, because only a new start makes them listen again, and the other sockets
    of the same daemon, because they stop with its main socket (BindsTo=)."""
    shared = tuple(libvirt.Daemon(name) for name in libvirt.SHARED)
    sockets: Set[str] = set()
    for daemon in libvirt.modular_daemons() + (libvirt.LIBVIRTD,) + shared:
        wanted = [n for n in daemon.sockets + (daemon.tls,) if wishes.get(n, LEFT).active]
        if any(host.unit(n).deaf for n in wanted) and not is_held(host, daemon.socket):
            sockets.update(wanted)
    return sockets


def services_in_the_way(
    host: Host, wishes: Mapping[str, Wish], start: Sequence[str], stop: Sequence[str]
) -> List[str]:
    """The running services whose sockets start or stop. systemd refuses to start a socket while its
    service runs, and a service goes on listening after its socket has stopped. Guests outlive the
    service (KillMode=process). virtlogd and virtlockd are never among these."""
    moved = set(start).union(stop)
    return [
        daemon.service
        for daemon in libvirt.modular_daemons() + (libvirt.LIBVIRTD,)
        if daemon.service in wishes
        and daemon.service not in stop
        and host.unit(daemon.service).is_active
        and moved.intersection(daemon.sockets + (daemon.tls, daemon.tcp))
    ]


def services_to_start(
    mode: str, host: Host, wishes: Mapping[str, Wish], start: Sequence[str], stop: Sequence[str]
) -> List[str]:
    """libvirtd.service, if it is not enabled yet, has failed, or has a socket that starts. An enabled
    libvirtd may be inactive: it exits after 120 s without a client, and its sockets start it again."""
    service = libvirt.LIBVIRTD.service
    unit = host.unit(service)
    if mode == libvirt.MODULAR or service not in wishes:
        return []
    if service in stop or unit.is_failed or set(start).intersection(libvirt.LIBVIRTD.sockets):
        return [service]
    return [] if unit.file_state == "enabled" or unit.is_active else [service]


def units_to_reset(host: Host, start: Sequence[str], stop: Sequence[str]) -> List[str]:
    """The units that systemd might refuse to start because they were started too often: those that
    start, and the services that clients will start through the started sockets. systemd counts
    starts as long as it has the unit in memory, so the starts of earlier and killed runs count."""
    services = [
        daemon.service
        for daemon in libvirt.modular_daemons() + (libvirt.LIBVIRTD,)
        if daemon.socket in start and daemon.service not in start
    ]
    idle = [n for n in services if n in stop or not host.unit(n).is_active]
    return [n for n in list(start) + idle if _may_have_started(host.unit(n))]


def _may_have_started(unit: Unit) -> bool:
    return unit.is_failed or unit.in_memory and not unit.fresh


def is_held(host: Host, socket: str) -> bool:
    """True for a socket of virtlogd or virtlockd whose service runs. That service holds the guests'
    consoles or locks, and would stop if the socket did."""
    name = socket.split("-", 1)[0].rsplit(".", 1)[0]
    return name in libvirt.SHARED and host.unit(libvirt.Daemon(name).service).is_active
