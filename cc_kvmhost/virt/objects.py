"""libvirt's networks and pools on this host: read from libvirt's own files, changed by its binding.

Both modes keep the same files: definitions and autostart links below /etc/libvirt, the state of what
is active below /run/libvirt. Reading them wakes no daemon, and works before one can be asked.

carry_out() is called in a child process (child.py).
"""

import contextlib
import importlib.util
import os
from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Sequence, Tuple
from xml.etree import ElementTree

from .. import files
from ..config import Network, Pool
from ..errors import KvmhostError
from . import bridges, networks, pools, routes, volume_groups
from .child import Say
from .steps import NETWORK, POOL, Step
from .units import LIBVIRTD, MODULAR, daemon, socket_path

# The kinds' names are those of the elements that define them.
_DEFINED = {NETWORK: "/etc/libvirt/qemu/networks", POOL: "/etc/libvirt/storage"}
_ACTIVE = {NETWORK: "/run/libvirt/network", POOL: "/run/libvirt/storage"}
_TEMPLATE = "/usr/share/libvirt/networks/default.xml"
_DRIVERS = {NETWORK: "network", POOL: "storage"}


class Objects(NamedTuple):
    """What a plan for networks and pools depends on. ``bridges``: for each that is asked for why it
    can't be used, "" if it can. ``places``: pools' directories. ``groups``: volume groups of the
    pools that are asked for, but for those that are known to be active. ``binding``: libvirt's is
    installed.
    """

    networks: Mapping[str, networks.NetworkState]
    pools: Mapping[str, pools.PoolState]
    routes: Tuple[routes.Route, ...]
    bridges: Mapping[str, str]
    places: Mapping[str, pools.Place]
    groups: Mapping[str, volume_groups.Group] = {}
    binding: bool = True


def read(asked_networks: Sequence[Network], asked_pools: Sequence[Pool]) -> Objects:
    """Look at this host.

    :raises KvmhostError: libvirt's files can't be read
    """
    try:
        pools_here = {each.name: each for each in _pools()}
        idle = [each for each in asked_pools if each.source and not _runs(pools_here, each.name)]
        groups = volume_groups.look({each.source for each in idle})
        for each in idle:
            found = pools_here.get(each.name)
            # As with directories, below: libvirt starts it as soon as its driver starts.
            if found and found.autostart and not groups[each.source].problem:
                pools_here[each.name] = found._replace(active=True)
        return Objects(
            networks={each.name: each for each in _networks()},
            pools=pools_here,
            routes=routes.read() if any(each.mode == "nat" for each in asked_networks) else (),
            bridges={
                each.bridge: bridges.refusal(each.bridge) for each in asked_networks if each.bridge
            },
            places={each.path: pools.look(each.path) for each in asked_pools if each.path},
            groups=groups,
            binding=importlib.util.find_spec("libvirt") is not None,
        )
    except OSError as error:
        what = f"{error.filename or 'routes'}: can't be read: {error.strerror}; it needs root"
        raise KvmhostError([what]) from error


def _runs(pools_here: Mapping[str, pools.PoolState], name: str) -> bool:
    return name in pools_here and pools_here[name].active


def _networks() -> Iterator[networks.NetworkState]:
    template = _parse(_TEMPLATE)
    for name, definition, status in _files(NETWORK):
        live = None if status is None else status.find(NETWORK)
        element = live if definition is None else definition
        try:
            found = networks.parse(element)
        except ValueError as error:
            path = _DEFINED[NETWORK] if live is None else _ACTIVE[NETWORK]
            raise KvmhostError([f"{path}/{name}.xml: {error}; mend it, or move it away"]) from error
        if not found.bridge and live is not None:
            # libvirt chooses a bridge where the definition names none.
            found = found._replace(bridge=networks.parse(live).bridge)
        packaged = name == "default" and template is not None
        yield found._replace(
            persistent=definition is not None,
            autostart=_is_autostarted(NETWORK, name),
            active=live is not None,
            packaged=packaged and networks.is_packaged(element, template),
            firewall=networks.firewall(status) if live is not None and found.mode == "nat" else "",
        )


def _pools() -> Iterator[pools.PoolState]:
    for name, definition, status in _files(POOL):
        found = pools.parse(status.find(POOL) if definition is None else definition)
        autostart = _is_autostarted(POOL, name)
        # A storage driver that starts takes each directory that is there for an active pool, and
        # writes a state only of those that it starts on demand.
        there = found.type == "dir" and autostart and os.path.isdir(found.path)
        yield found._replace(
            persistent=definition is not None,
            autostart=autostart,
            active=status is not None or there,
        )


def _files(kind: str) -> Iterator[Tuple[str, Any, Any]]:
    """Each object's name, its definition, and its status; None for what it hasn't.

    :raises KvmhostError: a file is something else
    """
    entries = _entries(_DEFINED[kind]) + _entries(_ACTIVE[kind])
    for name in sorted({entry[: -len(".xml")] for entry in entries if entry.endswith(".xml")}):
        defined, active = f"{_DEFINED[kind]}/{name}.xml", f"{_ACTIVE[kind]}/{name}.xml"
        definition, status = _parse(defined), _parse(active)
        if definition is not None and definition.tag != kind:
            raise KvmhostError([f"{defined}: not a {kind} of libvirt's; move it away"])
        if status is not None and status.find(kind) is None:
            raise KvmhostError([f"{active}: not the status of a {kind} of libvirt's; move it away"])
        # libvirt does not load a file that has another name than what it defines.
        if definition is not None and definition.findtext("name") != name:
            definition = None
        if definition is not None or status is not None:
            yield name, definition, status


def _entries(directory: str) -> List[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


def _parse(path: str) -> Any:
    content = files.read(path)
    try:
        return None if content is None else ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise KvmhostError([f"{path}: not XML: {error}; move it away"]) from error


def _is_autostarted(kind: str, name: str) -> bool:
    return os.path.lexists(f"{_DEFINED[kind]}/autostart/{name}.xml")


def order(mode: str, steps: Sequence[Step], go_on: bool = False) -> Dict[str, Any]:
    """What carry_out() is to be given. ``go_on``: do the rest where a step fails."""
    sockets = {
        kind: socket_path(daemon(driver).socket if mode == MODULAR else LIBVIRTD.socket)
        for kind, driver in _DRIVERS.items()
    }
    return {"sockets": sockets, "steps": list(steps), "go_on": go_on}


def service(mode: str, kind: str) -> str:
    """The service that carries out the steps of this kind."""
    return (daemon(_DRIVERS[kind]) if mode == MODULAR else LIBVIRTD).service


def carry_out(order: Dict[str, Any], say: Say) -> None:
    """Do each step; says which one it is ``at``, and which it has ``begun``: those are to be taken back
    if this fails or hangs.

    :raises KvmhostError: a step failed. What takes things back goes on with the next step, and raises
        at the end.
    """
    import libvirt

    libvirt.registerErrorHandler(lambda *_: None, None)
    connections: Dict[str, Any] = {}
    problems: List[str] = []
    for number, each in enumerate(order["steps"]):
        step = Step(*each)
        say({"at": number})
        try:
            if step.kind not in connections:
                path = order["sockets"][step.kind]
                uri = f"{_DRIVERS[step.kind]}+unix:///system?socket={path}"
                connections[step.kind] = libvirt.open(uri)
            if step.verb == "define" and _find(libvirt, connections[step.kind], step) is not None:
                raise KvmhostError(["somebody else has made it by now; see 'kvmhost plan'"])
            say({"begun": number})
            _VERBS[step.verb](libvirt, connections[step.kind], step)
        except libvirt.libvirtError as error:
            problems.append(f"{step}: {'; '.join(str(error.get_error_message()).splitlines())}")
        except OSError as error:
            problems.append(f"{step}: {error.strerror}")
        except KvmhostError as error:
            problems.append(f"{step}: {error}")
        if problems and not order["go_on"]:
            break
    if problems:
        raise KvmhostError(problems)


def _find(libvirt: Any, connection: Any, step: Step) -> Any:
    look = (
        connection.networkLookupByName
        if step.kind == NETWORK
        else connection.storagePoolLookupByName
    )
    try:
        return look(step.name)
    except libvirt.libvirtError as error:
        if error.get_error_code() in (libvirt.VIR_ERR_NO_NETWORK, libvirt.VIR_ERR_NO_STORAGE_POOL):
            return None
        raise


def _define(_libvirt: Any, connection: Any, step: Step) -> None:
    if step.kind == NETWORK:
        connection.networkDefineXML(step.value)
    else:
        connection.storagePoolDefineXML(step.value, 0)


def _redefine(libvirt: Any, connection: Any, step: Step) -> None:
    # The package's file may have no UUID: then the daemon has made one, and redefining needs it.
    network = ElementTree.fromstring(step.value)
    for uuid in network.findall("uuid"):
        network.remove(uuid)
    uuid = ElementTree.SubElement(network, "uuid")
    uuid.text = _find(libvirt, connection, step).UUIDString()
    connection.networkDefineXML(ElementTree.tostring(network, encoding="unicode"))


def _undefine(libvirt: Any, connection: Any, step: Step) -> None:
    found = _find(libvirt, connection, step)
    # libvirt undefines no pool that is active; why it still is has been said.
    if found is not None and not (step.kind == POOL and found.isActive()):
        found.undefine()


def _make(libvirt: Any, connection: Any, step: Step) -> None:
    _find(libvirt, connection, step).build(0)
    if step.label:
        files.set_label(step.value, step.label)


def _unmake(_libvirt: Any, _connection: Any, step: Step) -> None:
    """Remove the directories that were made, unless they are in use."""
    highest, path = step.value, step.before
    with contextlib.suppress(OSError):
        os.rmdir(path)
        while path != highest:
            path = os.path.dirname(path)
            os.rmdir(path)


def _autostart(libvirt: Any, connection: Any, step: Step) -> None:
    _find(libvirt, connection, step).setAutostart(1)


def _no_autostart(libvirt: Any, connection: Any, step: Step) -> None:
    found = _find(libvirt, connection, step)
    if found is not None:
        found.setAutostart(0)


def _start(libvirt: Any, connection: Any, step: Step) -> None:
    found = _find(libvirt, connection, step)
    # A daemon that has just started may already have started everything that is marked autostart.
    if not found.isActive():
        found.create()
    if step.kind == POOL:
        found.refresh(0)


def _stop(libvirt: Any, connection: Any, step: Step) -> None:
    found = _find(libvirt, connection, step)
    if found is not None and found.isActive():
        found.destroy()


def _keep(libvirt: Any, connection: Any, step: Step) -> None:
    found = _find(libvirt, connection, step)
    if found is not None and found.isActive():
        raise KvmhostError(
            [
                "it stays active, because stopping it would deactivate logical volumes that were"
                f" active before; 'virsh pool-destroy {step.name}' does that"
            ]
        )


_VERBS: Dict[str, Callable[[Any, Any, Step], None]] = {
    "define": _define,
    "redefine": _redefine,
    "undefine": _undefine,
    "make": _make,
    "unmake": _unmake,
    "autostart": _autostart,
    "no-autostart": _no_autostart,
    "start": _start,
    "keep": _keep,
    "stop": _stop,
}
