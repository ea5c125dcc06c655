"""Facts about a machine, read from the file tree one is given, so a captured machine takes the same code."""

from tflite_hal.host.cpu import Cluster, Cpu
from tflite_hal.host.devices import BusDevice, PlatformDevice
from tflite_hal.host.facts import HostInfo, probe_host
from tflite_hal.host.system import Board, Dmi, Thermal

__all__ = [
    "Board",
    "BusDevice",
    "Cluster",
    "Cpu",
    "Dmi",
    "HostInfo",
    "PlatformDevice",
    "Thermal",
    "probe_host",
]
