"""What a measurement is about: everything one must know to compare it with another."""

from __future__ import annotations

import platform

import numpy as np

from tflite_hal import __version__
from tflite_hal.benchmark import BenchmarkResult, Timing, peak_rss, statistics
from tflite_hal.host import probe_host
from tflite_hal.model import Model
from tflite_hal.runtime import Runtime
from tflite_hal.trial import Opened

__all__ = ["measured"]


def measured(model: Model, runtime: Runtime, opened: Opened, timing: Timing) -> BenchmarkResult:
    """Return a timing with what was timed and where."""
    candidate, host = opened.candidate, probe_host()
    model = candidate.opens(model)  # the file that was timed
    return BenchmarkResult(
        model=model.name,
        model_sha256=model.info.sha256,
        delegate=candidate.delegate.name,
        device=candidate.device.id,
        options=dict(candidate.configuration.options),
        runtime=runtime.name,
        runtime_version=runtime.version,
        threads=candidate.configuration.threads,
        host={"arch": host.arch, "cpu": host.cpu.model, "board": host.board.model, "os": host.os},
        versions={
            "python": platform.python_version(),
            "numpy": np.__version__,
            "tflite_hal": __version__,
        },
        load_ms=opened.load_ms,
        first_ms=timing.first_ms,
        warmup_runs=timing.warmup_runs,
        runs=len(timing.samples_ms),
        **statistics(timing.samples_ms),
        peak_rss_bytes=peak_rss(),
        boundary_ms=opened.session.boundary_ms,
    )
