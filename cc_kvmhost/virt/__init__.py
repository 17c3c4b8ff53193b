"""libvirt's side: its units and modes, who can be reached, guests, certificates."""
