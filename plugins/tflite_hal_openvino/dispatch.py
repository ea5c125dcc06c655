"""A second way to the same engine: LiteRT's dispatch to OpenVINO, which ai-edge-litert ships for Intel.

LiteRT compiles the model for the NPU alone, so that what OpenVINO does not take is an error and not run on
the CPU in silence. Its options are TOML: a backend for each graph by number, and OpenVINO's properties
(names in libLiteRtCompilerPlugin_IntelOpenvino.so of ai-edge-litert 2.3.0, tried there). Properties reach
the compiler only: a CPU that has bfloat16 computes in it whatever was asked for.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from tflite_hal import CompiledSession, DelegateError, Model, Problem, Runtime, Session
from tflite_hal_openvino.package import Installed, installed

__all__ = ["BACKENDS", "folder", "mismatch", "open_session"]

#: IntelOpenVinoGraphBackend, by kind of device.
BACKENDS: Final = {"cpu": 0, "gpu": 1, "npu": 2}

_SDK = "ai_edge_litert_sdk_intel"
_VENDOR = Path("vendors") / "intel_openvino"
#: The OpenVINO that a release's libraries are linked with, where the SDK does not tell.
_LINKED = {"2.3.0": "2026.3.1"}


def folder() -> str:
    """Return the folder of LiteRT's libraries for OpenVINO, "" where the installed packages have none or
    don't fit together."""
    litert = installed("ai_edge_litert")
    if litert is None or mismatch() is not None or _reason(litert):
        return ""
    return str(litert.folder / _VENDOR)


def mismatch() -> Problem | None:
    """Return what is wrong where Intel's SDK for LiteRT is installed beside other releases than its own."""
    sdk = installed(_SDK)
    if sdk is None:
        return None
    wanted = {"ai_edge_litert": sdk.version, "openvino": _openvino_of(sdk)}
    present = {name: one.version if (one := installed(name)) else "none" for name in wanted}
    if all(present[name] == version for name, version in wanted.items() if version):
        return None
    needs, has = (" and ".join(f"{n} {v}" for n, v in of.items() if v) for of in (wanted, present))
    evidence = f"{_SDK} {sdk.version} needs {needs}; installed: {has}"
    exact = [f"{name}=={version}" for name, version in {_SDK: sdk.version, **wanted}.items() if version]
    remedy = "pip install " + " ".join(exact).replace("_", "-")
    return Problem("runtime", evidence.replace("_", "-"), remedy, kind="npu")


def open_session(model: Model, runtime: Runtime, kind: str, precision: str | None) -> Session:
    """Compile a model for a kind of device.

    Raises:
        DelegateError: another runtime, its libraries or their OpenVINO are missing, or it can't be compiled.
    """
    if runtime.name != "ai_edge_litert":
        reason = f"LiteRT's dispatch to OpenVINO comes with ai_edge_litert, not with {runtime.name}"
        raise DelegateError(reason, remedy="through='openvino', or runtime='ai_edge_litert'")
    problem, litert = mismatch(), installed("ai_edge_litert")
    if problem is not None:
        raise DelegateError(problem.evidence, remedy=problem.remedy)
    reason = "ai_edge_litert is not found in sys.path" if litert is None else _reason(litert)
    if litert is None or reason:
        remedy = f"pip install openvino=={_LINKED[runtime.version]}" if runtime.version in _LINKED else ""
        raise DelegateError(reason, remedy=remedy or "through='openvino'")
    lines = [f"graph.{number}.graph_backend = {BACKENDS[kind]}" for number in range(model.info.subgraphs)]
    lines += [f'configs_map.INFERENCE_PRECISION_HINT = "{precision}"'] if precision else []
    folders = {name: str(litert.folder / _VENDOR / name) for name in ("dispatch", "compiler")}
    options = {"intel_openvino": "\n".join([*lines, ""])}
    try:
        return CompiledSession(model, runtime, accelerators=("npu",), options=options, folders=folders)
    except DelegateError as error:
        remedy = error.remedy or "through='openvino' tells OpenVINO's own reason"
        raise DelegateError(f"{error.reason} (LiteRT's dispatch to OpenVINO)", remedy=remedy) from error


def _reason(litert: Installed) -> str:
    """Return why its libraries can't be used, "" where they can."""
    for part in ("dispatch", "compiler"):
        if not (litert.folder / _VENDOR / part).is_dir():
            return f"ai_edge_litert {litert.version} has no {_VENDOR / part} for this system"
    sdk, openvino = installed(_SDK), installed("openvino")
    wanted = _openvino_of(sdk) if sdk is not None else _LINKED.get(litert.version, "")
    if openvino is None or openvino.version != wanted:
        needs = wanted or "of a version that is not known"
        has = openvino.version if openvino is not None else "none"
        return f"ai_edge_litert {litert.version} needs openvino {needs}; installed: {has}"
    return ""


def _openvino_of(sdk: Installed) -> str:
    """Return the version of OpenVINO that an SDK requires, "" where it does not tell."""
    try:
        text = (sdk.information / "METADATA").read_text("utf-8", "replace")
    except OSError:
        return _LINKED.get(sdk.version, "")
    found = re.search(r"^Requires-Dist: openvino *==([\w.]+)", text, re.MULTILINE)
    return found[1] if found else _LINKED.get(sdk.version, "")
