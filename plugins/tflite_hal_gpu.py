"""GPUs: says what is there; this release does not open them."""

from __future__ import annotations

from tflite_hal import Delegate, HostInfo, Probe, Problem, hookimpl

_NODES = ("/dev/mali0", "/dev/kgsl-3d0", "/dev/nvidia0")
_DISPLAY_CLASS = "03"  # PCI base class of display controllers


class GpuDelegate(Delegate):
    """GPUs by LiteRT's accelerators or the classic GPU delegate."""

    name = "gpu"
    api_version = 1
    description = "GPUs (not opened by this release, only reported)"
    install_hint = "not available in this release"

    def probe(self, host: HostInfo) -> Probe:
        """Return no device, and one problem that names the GPUs that are there."""
        seen = [f"{d.id} at {d.slot}" for d in host.pci if (d.class_code or "").startswith(_DISPLAY_CLASS)]
        seen += [node for node in host.nodes if node in _NODES or node.startswith("/dev/dri/renderD")]
        if not seen:
            return Probe()
        evidence = f"{', '.join(seen)} is there, but this release can't run models on a GPU"
        return Probe((), (Problem("open", evidence, "use the CPU", kind="gpu"),))


@hookimpl
def tflite_hal_register_delegates() -> list[type[Delegate]]:
    """Register the GPU."""
    return [GpuDelegate]
