"""Whether a device that failed is there again: a stick that was pulled out may be back, at another port."""

from __future__ import annotations

from collections.abc import Sequence

from tflite_hal.delegate import Problem
from tflite_hal.host import probe_host
from tflite_hal.runner.choice import known_manager
from tflite_hal.selection import Candidate, is_own_cpu

__all__ = ["look_again"]


def look_again(candidate: Candidate, known: Sequence[Candidate]) -> Candidate | Problem:
    """Probe for a candidate's device: the candidate with what is known of it now, or why it isn't there.

    One that is where it was, is the same under whatever number it has now. One under its number is it only
    if it is not at the place of another one of those that are ``known``: devices are counted anew when one
    is gone.
    """
    delegate, device = candidate.delegate, candidate.device
    if is_own_cpu(delegate, device):
        return candidate
    found = known_manager().probe_one(delegate, probe_host())
    others = {one.device.place for one in known if one.delegate is delegate and one.device.id != device.id}
    for one in found.devices:
        if one.place == device.place:
            return candidate._replace(device=one._replace(id=device.id))
    for one in found.devices:
        if one.id == device.id and one.place not in others:
            return candidate._replace(device=one)
    remedy = "plug it in; tflite-hal probe shows what is there"
    absent = Problem("bus", "no such device on this machine", remedy, device.id, device.kind)
    return next((one for one in found.problems if one.device in (device.id, "")), absent)
