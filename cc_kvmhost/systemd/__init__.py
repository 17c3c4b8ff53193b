"""systemd: the bus, the manager behind it, its jobs, and unit files on the disk."""
