"""The support bundle: what ``probe`` found, and what it found it in, in one file to send."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from tflite_hal import __version__
from tflite_hal.cli.aside import write_aside
from tflite_hal.host import HostInfo
from tflite_hal.host.bundle import packed_files, scrubber_for

__all__ = ["FOLDER", "write_bundle"]

#: The folder everything is in: a root for ``probe --root``.
FOLDER: Final = "tflite-hal-bundle"
_DISTRIBUTIONS: Final = (
    "ai-edge-litert", "tflite-runtime", "tensorflow", "numpy", "pluggy", "click", "rich", "psutil", "pillow",
)  # fmt: skip


def write_bundle(path: str, host: HostInfo, report: Mapping[str, Any], text: str, force: bool) -> int:
    """Write the bundle, aside first, and return how many files of the machine are in it.

    Args:
        report: what ``probe --json`` prints; it gets the ``versions``.
        text: what ``probe`` prints.
        force: whether a file that is there is replaced.

    Raises:
        TfliteHalError: there is such a file, or it can't be written.
    """
    scrubber = scrubber_for(host)
    files = dict(packed_files(host, scrubber))
    count = sum(content is not None for content in files.values())
    report = {"versions": _versions(report.get("plugins", ())), **report}
    files["probe.json"] = json.dumps(scrubber.plain(report), indent=2, default=str).encode()
    files["probe.txt"] = scrubber.text(text).encode("utf-8", "backslashreplace")
    write_aside(Path(path), _packed(files), force)
    return count


def _packed(files: Mapping[str, bytes | None]) -> bytes:
    """Return the archive: plain files and folders, without owners and times."""
    packed = io.BytesIO()
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=packed, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8") as archive,
    ):
        for name, content in sorted(files.items()):
            member = tarfile.TarInfo(f"{FOLDER}/{name}")
            if content is None:
                member.type, member.mode = tarfile.DIRTYPE, 0o755
            else:
                member.size = len(content)
            archive.addfile(member, io.BytesIO(content or b""))
    return packed.getvalue()


def _versions(plugins: Iterable[Mapping[str, Any]]) -> dict[str, str | None]:
    names = [*_DISTRIBUTIONS, *(plugin["distribution"] for plugin in plugins if plugin.get("distribution"))]
    return {"tflite-hal": __version__, **{name: _version(name) for name in names}}


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except (metadata.PackageNotFoundError, ValueError):
        return None
