"""A delegate in pure Python that computes operators with the runtime's own kernels, and misbehaves.

The layouts are those of the runtimes' plain C interface for delegates; no runtime ships headers of it.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable
from ctypes import POINTER, c_char_p, c_int, c_int32, c_int64, c_size_t, c_uint64, c_void_p
from typing import Any, Final

import numpy as np

from tflite_hal.errors import DelegateError
from tflite_hal.testing.misbehaviour import NUMERIC, Settings, changed, misbehave

__all__ = ["ForwardingDelegate"]

_OK: Final = 0
_FAILED: Final = 1
_CODE_CUSTOM: Final = 32
_CODE_DELEGATE: Final = 51
#: Without this flag the runtime prepares the original operators first, which it then never runs.
_ALLOW_DYNAMIC_TENSORS: Final = 1
#: Types that hold no numbers: strings, resources, variants.
_NO_NUMBERS: Final = (5, 14, 15)
#: The types whose numbers are changed; the others by bytes only.
_DTYPES: Final = {1: "f4", 2: "i4", 3: "u1", 4: "i8", 7: "i2", 9: "i1"}


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("type", c_int),
        ("data", c_void_p),
        ("dims", c_void_p),
        ("scale", ctypes.c_float),
        ("zero_point", c_int32),
        ("allocation_type", c_int),
        ("bytes", c_size_t),
        ("allocation", c_void_p),
        ("name", c_char_p),
        ("delegate", c_void_p),
        ("buffer_handle", c_int),
        ("data_is_stale", ctypes.c_bool),
        ("is_variable", ctypes.c_bool),
        ("quantization_type", c_int),
        ("quantization", c_void_p),
        ("sparsity", c_void_p),
        ("dims_signature", c_void_p),
    )


class _Node(ctypes.Structure):
    _fields_ = (
        ("inputs", c_void_p),
        ("outputs", c_void_p),
        ("intermediates", c_void_p),
        ("temporaries", c_void_p),
        ("user_data", c_void_p),
        ("builtin_data", c_void_p),
        ("custom_initial_data", c_void_p),
        ("custom_initial_data_size", c_int),
        ("delegate", c_void_p),
        ("might_have_side_effect", ctypes.c_bool),
    )


class _Registration(ctypes.Structure):
    # Passed by value: all of it, the last three too, though nothing here uses them.
    _fields_ = (
        ("init", c_void_p),
        ("free", c_void_p),
        ("prepare", c_void_p),
        ("invoke", c_void_p),
        ("profiling_string", c_void_p),
        ("builtin_code", c_int32),
        ("custom_name", c_char_p),
        ("version", c_int),
        ("external", c_void_p),
        ("async_kernel", c_void_p),
        ("inplace", c_uint64),
    )


_Call = ctypes.CFUNCTYPE(c_int, c_void_p, c_void_p)
_Init = ctypes.CFUNCTYPE(c_void_p, c_void_p, c_void_p, c_size_t)
_Free = ctypes.CFUNCTYPE(None, c_void_p, c_void_p)
_GetNode = ctypes.CFUNCTYPE(c_int, c_void_p, c_int, POINTER(c_void_p), POINTER(c_void_p))
_GetPlan = ctypes.CFUNCTYPE(c_int, c_void_p, POINTER(c_void_p))
_Replace = ctypes.CFUNCTYPE(c_int, c_void_p, _Registration, c_void_p, c_void_p)


class _Context(ctypes.Structure):
    _fields_ = (
        ("tensors_size", c_size_t),
        ("get_plan", _GetPlan),
        ("tensors", c_void_p),
        ("impl", c_void_p),
        ("resize_tensor", c_void_p),
        ("report_error", ctypes.CFUNCTYPE(None, c_void_p, c_char_p)),
        ("add_tensors", c_void_p),
        ("get_node", _GetNode),
        ("replace_nodes", _Replace),
    )


class _Delegate(ctypes.Structure):
    _fields_ = (
        ("data", c_void_p),
        ("prepare", c_void_p),
        ("copy_from_buffer", c_void_p),
        ("copy_to_buffer", c_void_p),
        ("free_buffer", c_void_p),
        ("flags", c_int64),
        ("builder", c_void_p),
    )


class _PartitionParams(ctypes.Structure):
    _fields_ = (("delegate", c_void_p), ("nodes", c_void_p), ("inputs", c_void_p), ("outputs", c_void_p))


def _integers(address: int | None) -> list[int]:
    """Read an array of C ints that begins with its length."""
    if not address:
        return []
    length = c_int.from_address(address).value
    return list((c_int * length).from_address(address + ctypes.sizeof(c_int)))


class _Kernel:
    """One operator: what the runtime runs for it, on a copy of its node."""

    def __init__(self, node: _Node, registration: _Registration) -> None:
        # Copies: the runtime moves its own when nodes are added.
        self.node = _Node.from_buffer_copy(node)
        self.outputs = _integers(node.outputs)
        self.prepare = _Call(registration.prepare) if registration.prepare else None
        self.invoke = _Call(registration.invoke)
        self.first = False
        self.last = False
        self.previous: dict[int, bytes] = {}

    def forward(self, call: Callable[[int, Any], int], context: int, node: _Node) -> int:
        """Call the operator with the temporaries of the partition's node, those that get memory."""
        self.node.temporaries = node.temporaries
        status = call(context, ctypes.addressof(self.node))
        node.temporaries = self.node.temporaries
        return status


class _Engine:
    """The callbacks' side of the delegate; knows nothing of who owns them, so that no cycle keeps it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.native = _Delegate(flags=_ALLOW_DYNAMIC_TENSORS)
        self.registration = _Registration(
            builtin_code=_CODE_DELEGATE, custom_name=b"FaultDelegate", version=1
        )
        self.runs = 0
        self.error: BaseException | None = None
        self._kernels: dict[int, _Kernel] = {}
        self._numbers = itertools.count(1)  # 0 would be NULL
        self.claimed: list[int] = []  # of the main graph, by the places of its operators
        self._graph: int | None = None  # the main graph, which is prepared first: its runs are counted

    def prepare_delegate(self, address: int, _: int) -> int:
        """Take the operators; the last step of creating an interpreter."""
        if self._fails(address, "delegate_prepare"):
            return _FAILED
        context = _Context.from_address(address)
        self._graph = self._graph or address
        for index in self._plan(address):
            if self._wanted(address, index):
                one = (c_int * 2)(1, index)
                if context.replace_nodes(address, self.registration, one, ctypes.addressof(self.native)):
                    return _FAILED
                if address == self._graph:
                    self.claimed.append(index)
        if address == self._graph:
            # Taking a node changes the plan: what is first and last is known after all were taken.
            nodes = [self._node(address, index)[0] for index in self._plan(address)]
            ours = [node.user_data for node in nodes if node.delegate == ctypes.addressof(self.native)]
            if ours:
                self._kernels[ours[0]].first = self._kernels[ours[-1]].last = True
        return _OK

    def init(self, address: int, buffer: int, _: int) -> int:
        """Return the number of a new kernel for the one node of a partition."""
        (index,) = _integers(_PartitionParams.from_address(buffer).nodes)
        number = next(self._numbers)
        self._kernels[number] = _Kernel(*self._node(address, index))
        return number

    def free(self, _: int, number: int | None) -> None:
        """Forget a kernel."""
        self._kernels.pop(number or 0, None)

    def prepare(self, address: int, node_address: int) -> int:
        """Prepare the operator: its outputs' shapes, its temporaries."""
        if self._fails(address, "kernel_prepare"):
            return _FAILED
        node = _Node.from_address(node_address)
        kernel = self._kernels[node.user_data]
        return _OK if kernel.prepare is None else kernel.forward(kernel.prepare, address, node)

    def invoke(self, address: int, node_address: int) -> int:
        """Run the operator; count the run at the first, change the outputs of the last."""
        node = _Node.from_address(node_address)
        kernel = self._kernels[node.user_data]
        if kernel.first:
            self.runs += 1
            if self._fails(address, "run"):
                return _FAILED
        status = kernel.forward(kernel.invoke, address, node)
        if status == _OK and kernel.last and self.settings.fault in NUMERIC:
            self._change(_Context.from_address(address), kernel)
        return status

    def _fails(self, address: int, stage: str) -> bool:
        text = misbehave(self.settings, stage, self.runs)
        if text:
            _Context.from_address(address).report_error(address, f"{text}. ".encode())
        return bool(text)

    def _plan(self, address: int) -> list[int]:
        plan = c_void_p()
        if _Context.from_address(address).get_plan(address, ctypes.byref(plan)):
            raise DelegateError("the runtime does not tell its execution plan")
        return _integers(plan.value)

    def _node(self, address: int, index: int) -> tuple[_Node, _Registration]:
        node, registration = c_void_p(), c_void_p()
        get = _Context.from_address(address).get_node
        if get(address, index, ctypes.byref(node), ctypes.byref(registration)):
            raise DelegateError(f"the runtime does not tell node {index}")
        return _Node.from_address(node.value or 0), _Registration.from_address(registration.value or 0)

    def _wanted(self, address: int, index: int) -> bool:
        node, registration = self._node(address, index)
        code = registration.builtin_code
        custom = code in (_CODE_CUSTOM, _CODE_DELEGATE)
        return bool(self.settings.takes(code, custom) and registration.invoke and _integers(node.outputs))

    def _change(self, context: _Context, kernel: _Kernel) -> None:
        begun = self.runs >= self.settings.at
        for place, index in enumerate(kernel.outputs):
            tensor = _Tensor.from_address(context.tensors + index * ctypes.sizeof(_Tensor))
            if index < 0 or tensor.type in _NO_NUMBERS or not tensor.data or not tensor.bytes:
                continue
            memory = (ctypes.c_char * tensor.bytes).from_address(tensor.data)
            if self.settings.fault == "stale":
                now = memory.raw
                before = kernel.previous.get(place, b"")
                kernel.previous[place] = now
                if begun:
                    memory.raw = before if len(before) == len(now) else bytes(len(now))
            elif begun:
                values = np.frombuffer(memory, _dtype(tensor))
                values[...] = changed(self.settings.fault, values, self.settings.steps)


def _dtype(tensor: _Tensor) -> np.dtype[Any]:
    """Return the tensor's type, or one of the same width whose numbers are left alone."""
    if tensor.type in _DTYPES:
        return np.dtype(_DTYPES[tensor.type])
    count = max(1, int(np.prod(_integers(tensor.dims))))
    return np.dtype((np.void, max(1, tensor.bytes // count)))  # values below a byte are packed


class ForwardingDelegate:
    """What ``Interpreter(experimental_delegates=[...])`` takes; must outlive the interpreter.

    Raises:
        DelegateError: fault ``error`` at stage ``create``.

    Attributes:
        error: the last exception in a callback, of which the runtime sees only that it failed.
    """

    def __init__(self, settings: Settings) -> None:
        refusal = misbehave(settings, "create")
        if refusal:
            raise DelegateError(refusal)
        self._engine = engine = _Engine(settings)
        self.claimed = engine.claimed  # places of the operators it took in the main subgraph
        self._callbacks = [
            _Call(_guarded(engine, engine.prepare_delegate)),
            _Init(_guarded(engine, engine.init, failed=None)),
            _Free(engine.free),
            _Call(_guarded(engine, engine.prepare)),
            _Call(_guarded(engine, engine.invoke)),
        ]
        own, init, free, prepare, invoke = (ctypes.cast(c, c_void_p).value for c in self._callbacks)
        engine.native.prepare = own
        engine.registration.init, engine.registration.free = init, free
        engine.registration.prepare, engine.registration.invoke = prepare, invoke

    @property
    def error(self) -> BaseException | None:
        """See the class."""
        return self._engine.error

    def _get_native_delegate_pointer(self) -> int:
        return ctypes.addressof(self._engine.native)

    def __del__(self) -> None:
        engine = getattr(self, "_engine", None)  # missing where creating it failed
        if engine is not None:
            misbehave(engine.settings, "destroy")


def _guarded(
    engine: _Engine, callback: Callable[..., int], failed: int | None = _FAILED
) -> Callable[..., int | None]:
    """Keep an exception, which must not pass through the runtime's native code."""

    def call(*arguments: Any) -> int | None:
        try:
            return callback(*arguments)
        except Exception as error:
            engine.error = error
            return failed

    return call
