"""Qualcomm's Hexagon DSP and HTP: says what is there; this release does not open it.

Presence: the fastrpc nodes of the mainline driver, ``/dev/adsprpc-smd`` of vendors' kernels; the
libraries are QNN's ``libQnnTFLiteDelegate.so`` and the older ``libhexagon_interface.so`` (Android).
"""

from __future__ import annotations

from tflite_hal import Delegate, HostInfo, Probe, Problem, hookimpl

_LIBRARIES = ("libQnnTFLiteDelegate.so", "libhexagon_interface.so")


class HexagonDelegate(Delegate):
    """Qualcomm Hexagon by the QNN delegate or the older Hexagon delegate."""

    name = "hexagon"
    api_version = 1
    description = "Qualcomm Hexagon (not opened by this release, only reported)"
    install_hint = "not available in this release"

    def probe(self, host: HostInfo) -> Probe:
        """Return no device, and one problem that names the nodes and libraries that are there."""
        nodes = [n for n in host.nodes if n.startswith(("/dev/fastrpc-", "/dev/adsprpc", "/dev/cdsprpc"))]
        if not nodes:
            return Probe()
        library = host.find_library(*_LIBRARIES)
        found = f"with {library}" if library else f"without {' or '.join(_LIBRARIES)}"
        evidence = f"{', '.join(nodes)} {found}: this release can't run models on Hexagon"
        return Probe((), (Problem("open", evidence, "use the CPU", kind="dsp"),))


@hookimpl
def tflite_hal_register_delegates() -> list[type[Delegate]]:
    """Register Hexagon."""
    return [HexagonDelegate]
