"""Facts about a machine, read from the file tree one is given, so a captured machine takes the same code."""

from tflite_hal.host.facts import Board, BusDevice, Cluster, Cpu, Dmi, HostInfo, probe_host

__all__ = ["Board", "BusDevice", "Cluster", "Cpu", "Dmi", "HostInfo", "probe_host"]
