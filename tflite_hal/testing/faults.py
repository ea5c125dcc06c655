"""Delegates that misbehave on request, to test what stands around delegates.

Each takes the operators it is told to, one partition per operator, and computes them with the runtime's
own kernels: without a fault its numbers are those of the runtime. :class:`FaultDelegate` is a shared
library, as vendors ship them, built by :func:`build_library`; :class:`PythonFaultDelegate` does the same
without a compiler. The options of both:

``operators``
    builtin codes with commas ("3,4"), or ``all``: every operator that is not custom.
``fault``
    what goes wrong. At any stage:

    * ``error``: the stage fails with a message; ``destroy``, which can't fail, only says so on stderr.
    * ``segv``, ``abort``, ``exit0``, ``exit7``: the process ends so. ``hang``: it never returns.
      All write a line to stderr first: "tflite-hal fault injection: segv at run 3".

    At stage ``run`` only, to the outputs of the last operator taken, in the order of execution (the
    model's outputs, where all were taken):

    * ``wrong``: the order of the values is reversed, so that the largest becomes the smallest; the
      largest change is at least their range.
    * ``small``: each value is off by ``steps`` quantisation steps; floats by as many 256ths of their range.
    * ``nan``: floats only, integers stay right. ``inf``: integers become the largest of their type.
    * ``zero``: every stored value is 0. ``constant``: every value is the first.
    * ``stale``: the outputs of the run before; zeros at the first.

    ``zero``, ``constant`` and ``stale`` change every type of numbers; the others change float32, int8,
    uint8, int16, int32 and int64 and leave other types right.
``stage``
    where: ``create``, ``delegate_prepare``, ``kernel_prepare``, ``run`` or ``destroy``.
``at``
    the run, from 1, at which a fault of stage ``run`` begins; it lasts from then on. Runs are counted per
    delegate object, which is for one interpreter, by the first operator taken of the model's main graph.
    The trial of :class:`tflite_hal.Runner` is the first run.
``steps``
    the size of ``small``.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import ClassVar, Final

from tflite_hal.delegate import Configuration, Delegate, Device, Option, Probe, Problem, check_options
from tflite_hal.errors import DelegateError
from tflite_hal.external import ExternalDelegate
from tflite_hal.host import HostInfo
from tflite_hal.model import Model
from tflite_hal.runtime import Runtime
from tflite_hal.session import InterpreterSession, Session
from tflite_hal.testing.forwarding import ForwardingDelegate
from tflite_hal.testing.misbehaviour import ENDING, NUMERIC, STAGES, Settings

__all__ = ["LIBRARY", "OPTIONS", "VARIABLE", "FaultDelegate", "PythonFaultDelegate", "build_library"]

#: The file that :func:`build_library` makes.
LIBRARY: Final = "libtflite_hal_fault.so"
#: The variable that names the library where it is in none of the loader's folders.
VARIABLE: Final = "TFLITE_HAL_FAULT_LIBRARY"

OPTIONS: Final = (
    Option("operators", "str", "all", "builtin codes of the operators to take, with commas, or all"),
    Option("fault", "str", "none", "what goes wrong", choices=("none", *ENDING, *NUMERIC)),
    Option("stage", "str", "run", "where it goes wrong", choices=STAGES),
    Option("at", "int", 1, "the run, from 1, at which it begins"),
    Option("steps", "int", 3, "quantisation steps by which fault=small is off"),
)


class FaultDelegate(ExternalDelegate):
    """A shared library that misbehaves on request; see :mod:`tflite_hal.testing.faults`.

    Attributes:
        library: path of the library for :meth:`probe`; "" is what ``TFLITE_HAL_FAULT_LIBRARY`` names.
    """

    name = "fault"
    api_version = 1
    description = "fault injection by a shared library"
    options = OPTIONS
    libraries = (LIBRARY,)
    kind = "npu"
    library: ClassVar[str] = ""

    def probe(self, host: HostInfo) -> Probe:
        """Return one device where the library is; a worker gets the path with the device."""
        named = self.library or (os.environ.get(VARIABLE, "") if host.live else "")
        path = named or host.find_library(*self.libraries)
        if path is None or (named and not Path(named).is_file()):
            evidence = f"{named} is no file" if named else f"{VARIABLE} is not set, no {LIBRARY} is installed"
            remedy = f"build it with tflite_hal.testing.build_library(folder) and set {VARIABLE}"
            return Probe((), (Problem("library", evidence, remedy),))
        return Probe((Device("fault:0", self.kind, "fault injection", {"library": path}),))

    def open(self, model: Model, device: Device, configuration: Configuration, runtime: Runtime) -> Session:
        """See :meth:`ExternalDelegate.open`."""
        check_options(self, configuration.options)
        return super().open(model, device, configuration, runtime)


class PythonFaultDelegate(Delegate):
    """The same without a compiler: its kernels are Python; see :mod:`tflite_hal.testing.faults`."""

    name = "fault_python"
    api_version = 1
    description = "fault injection by Python"
    options = OPTIONS

    def probe(self, host: HostInfo) -> Probe:
        """Return one device: nothing is needed."""
        return Probe((Device("fault:0", "npu", "fault injection by Python"),))

    def open(self, model: Model, device: Device, configuration: Configuration, runtime: Runtime) -> Session:
        """Open a model, and refuse a session in which no operator was taken.

        Raises:
            DelegateError: the fault asked for, or options that can't be followed.
        """
        check_options(self, configuration.options)
        given = {name: value for name, value in configuration.options.items() if value is not None}
        faulty = ForwardingDelegate(Settings.checked(self.name, given))
        session = InterpreterSession(model, runtime, delegates=[faulty], threads=configuration.threads)
        try:
            if session.coverage is not None:
                session.coverage.require_some(self.name, model.name)
        except DelegateError:
            session.close()
            raise
        return session


def build_library(folder: str | Path) -> Path:
    """Compile the library of :class:`FaultDelegate` with ``$CC`` or ``cc`` and return its path.

    Raises:
        DelegateError: no compiler is here, or it failed.
    """
    command = shlex.split(os.environ.get("CC", "")) or ["cc"]
    compiler = shutil.which(command[0])
    if compiler is None:
        raise DelegateError(
            f"no C compiler: {command[0]} is not found",
            remedy="install one, name one in CC, or use PythonFaultDelegate",
        )
    source, target = Path(__file__).with_name("faults.c"), Path(folder).absolute() / LIBRARY
    arguments = ["-O2", "-shared", "-fPIC", "-o", str(target), str(source)]
    done = subprocess.run([compiler, *command[1:], *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise DelegateError(
            f"{command[0]} can't compile {source.name}: {' '.join(done.stderr.split())[-400:]}"
        )
    return target
