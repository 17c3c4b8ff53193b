"""libvirt's side: units, modes, sockets, guests, certificates, networks and pools."""
