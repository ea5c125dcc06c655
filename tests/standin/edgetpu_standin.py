"""An Edge TPU where there is none: sticks in a file tree, a library that serves compiled models.

``libedgetpu.c`` is the library; this is what it does, in the process that loads it. As the real one it counts
sticks without firmware first, loads the firmware at the first open, gives a device to one process at a time,
and answers ``edgetpu-custom-op`` only, here by the runtime's built-in kernels on the model that was compiled:
the file that ``twin`` in the tree names. A stick that is taken out of the tree fails as ``mode`` says.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

import numpy as np

from tflite_hal.testing.forwarding import (
    _Call,
    _Context,
    _Delegate,
    _Free,
    _Init,
    _integers,
    _Node,
    _Registration,
    _Tensor,
)

BOOTLOADER, RUNNING = "1a6e:089a", "18d1:9302"
SLOTS = "/sys/bus/usb/devices"


class Bus:
    """The tree's USB, from outside: plug sticks in and out."""

    def __init__(self, tree: Path) -> None:
        self.tree = tree
        self.write("usr/lib/.keep", "")
        self.mode("error")

    def write(self, path: str, text: str) -> None:
        file = self.tree / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def plug(self, slot: str, identity: str = BOOTLOADER) -> None:
        set_identity(self.tree, slot, identity)

    def unplug(self, slot: str) -> None:
        shutil.rmtree(self.tree / SLOTS[1:] / slot)

    def mode(self, mode: str) -> None:
        """``error``: the run fails; ``abort``: the library aborts; ``hang``: it never returns."""
        self.write("mode", mode)

    def serve(self, twin: Path) -> None:
        self.write("twin", str(twin))

    @property
    def opened(self) -> list[str]:
        """What was opened, in order: slots."""
        log = self.tree / "opened"
        return log.read_text().split() if log.exists() else []


def build_library(tree: Path) -> Path:
    """Compile the library for a tree into it."""
    path = tree / "usr/lib/libedgetpu.so.1"
    source = Path(__file__).with_name("libedgetpu.c")
    command = ["cc", "-O1", "-shared", "-fPIC", f'-DTREE="{tree}"', "-o", str(path), str(source)]
    subprocess.run(command, check=True)
    return path


def set_identity(tree: Path, slot: str, identity: str) -> None:
    folder = tree / SLOTS[1:] / slot
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in zip(("idVendor", "idProduct"), identity.split(":"), strict=True):
        (folder / name).write_text(f"{text}\n")


def slots(tree: Path) -> list[str]:
    """The sticks in the library's order: those without firmware first, the last port first."""
    folder = tree / SLOTS[1:]
    found = sorted(folder.iterdir(), reverse=True) if folder.is_dir() else []
    first = [one for one in found if (one / "idVendor").read_text().strip() == BOOTLOADER[:4]]
    return [one.name for one in (*first, *(one for one in found if one not in first))]


# ---- called by the library ----


class Listed(ctypes.Structure):
    _fields_ = (("bus", ctypes.c_int), ("path", ctypes.c_char_p))


_delegates: dict[int, Twin] = {}
_owned: dict[str, int] = {}  # descriptors that hold locks, by slot
_kept: list[Any] = []


def listing(tree: str, count: int) -> int:
    """Answer ``edgetpu_list_devices``."""
    records = [Listed(1, f"{SLOTS}/{slot}".encode()) for slot in slots(Path(tree))]
    array = (Listed * len(records))(*records)
    _kept.append(array)
    ctypes.c_size_t.from_address(count).value = len(records)
    return ctypes.addressof(array)


def create(tree: str, options: dict[str, str]) -> int:
    """Answer ``tflite_plugin_create_delegate``: no address where the device can't be opened."""
    root = Path(tree)
    bus, _, number = options["device"].partition(":")
    known = slots(root)
    if bus != "usb" or int(number) >= len(known):
        return 0
    slot = known[int(number)]
    if slot not in _owned and not own(root, slot):
        print(f"Failed to open device [Apex (USB)] at [{SLOTS}/{slot}]: USB error -6", file=sys.stderr)
        return 0
    set_identity(root, slot, RUNNING)
    with (root / "opened").open("a") as log:
        log.write(f"{slot}\n")
    made = Twin(root, slot)
    _delegates[made.address] = made
    return made.address


def own(root: Path, slot: str) -> bool:
    """Take the device for this process, unless another has it."""
    descriptor = os.open(root / f"owner-{slot}", os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return False
    _owned[slot] = descriptor
    return True


def destroy(address: int) -> int:
    """Answer ``tflite_plugin_destroy_delegate``, also of none."""
    gone = _delegates.pop(address, None)
    if gone is not None and all(other.slot != gone.slot for other in _delegates.values()):
        os.close(_owned.pop(gone.slot))
    return 0


def guarded(callback):
    """Fail where it raises: the runtime would take it for done."""

    def call(*arguments: int) -> int:
        try:
            return callback(*arguments)
        except Exception:
            traceback.print_exc()
            return 1

    return call


class Twin:
    """A delegate that has the built-in kernels run the model from which the operator was compiled."""

    def __init__(self, root: Path, slot: str) -> None:
        self.slot = slot
        self._root = root
        self._lost = False
        names = ("ai_edge_litert.interpreter", "tflite_runtime.interpreter")
        runtime = next(sys.modules[name] for name in names if name in sys.modules)
        self._twin: Any = runtime.Interpreter(
            (root / "twin").read_text(),
            num_threads=1,
            experimental_op_resolver_type=runtime.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
        self._twin.allocate_tensors()
        self._tensors = {detail["name"]: detail for detail in self._twin.get_tensor_details()}
        self._callbacks = (
            _Call(guarded(self.prepare_delegate)),
            _Init(lambda context, buffer, size: 1),
            _Free(lambda context, data: None),
            _Call(lambda context, node: 0),
            _Call(guarded(self.invoke)),
        )
        own, init, free, prepare, invoke = (
            ctypes.cast(callback, ctypes.c_void_p).value for callback in self._callbacks
        )
        # Without flag 1 the runtime prepares the original operator first, which it does not know.
        self._native = _Delegate(prepare=own, flags=1)
        self._kernel = _Registration(
            init=init, free=free, prepare=prepare, invoke=invoke, builtin_code=51, version=1,
            custom_name=b"EdgeTpuDelegateForCustomOp",
        )  # fmt: skip
        self.address = ctypes.addressof(self._native)

    def prepare_delegate(self, address: int, _: int) -> int:
        context = _Context.from_address(address)
        plan = ctypes.c_void_p()
        context.get_plan(address, ctypes.byref(plan))
        for index in _integers(plan.value):
            node, operator = ctypes.c_void_p(), ctypes.c_void_p()
            context.get_node(address, index, ctypes.byref(node), ctypes.byref(operator))
            if _Registration.from_address(operator.value).custom_name == b"edgetpu-custom-op":
                one = (ctypes.c_int * 2)(1, index)
                if context.replace_nodes(address, self._kernel, one, self.address):
                    return 1
        return 0

    def invoke(self, address: int, node_address: int) -> int:
        context, node = _Context.from_address(address), _Node.from_address(node_address)
        self._lost |= not (self._root / SLOTS[1:] / self.slot).is_dir()
        if self._lost:  # for good: it would have to be opened again
            return self._gone(context, address)
        tensors = [
            _Tensor.from_address(context.tensors + index * ctypes.sizeof(_Tensor))
            for index in (*_integers(node.inputs), *_integers(node.outputs))
        ]
        inputs, outputs = tensors[: -len(_integers(node.outputs))], tensors[-len(_integers(node.outputs)) :]
        for tensor in inputs:  # also what a stateful model remembers: it is the caller's
            detail = self._tensors[tensor.name.decode()]
            values = np.frombuffer(ctypes.string_at(tensor.data, tensor.bytes), detail["dtype"])
            self._twin.set_tensor(detail["index"], values.reshape(detail["shape"]))
        self._twin.invoke()
        for tensor in (*outputs, *(one for one in inputs if one.is_variable)):
            content = self._twin.get_tensor(self._tensors[tensor.name.decode()]["index"]).tobytes()
            ctypes.memmove(tensor.data, content, len(content))
        return 0

    def _gone(self, context: _Context, address: int) -> int:
        """Fail as the real one is reported to where its stick was pulled out."""
        mode = (self._root / "mode").read_text()
        if mode == "hang":
            threading.Event().wait()
        if mode == "abort":
            text = b"F driver/usb/usb_driver.cc:1148] HandleQueuedBulkIn transfer in failed. Not found: "
            os.write(2, text + b"USB transfer error 5 [LibUsbDataInCallback]\n")
            os.abort()
        context.report_error(address, b"Failed to execute request. Edge TPU is not ready. ")
        return 1
