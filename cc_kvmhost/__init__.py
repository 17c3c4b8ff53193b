"""Kvmhost: makes the machine a KVM host at first boot."""
