"""What trials found, remembered in small files: one that crashed is not tried again at the next start.

::

    verdicts = Verdicts(cache_folder())
    name = key(parts)                       # everything that decides: model, host, library, options ...
    verdict = verdicts.read(name, parts)    # the warm path: one small file
    if verdict is None or verdict.state == "started":
        with verdicts.lock(name, limit) as got:  # of two processes the second waits, then reads
            verdict = verdicts.read(name, parts)
            if verdict is None or (got and verdict.state == "started"):  # left by a thread that failed
                verdicts.start(name, parts)  # seen at the next start if this one takes the machine down
                ...                          # the trial; cancel() where it was stopped on purpose
                verdicts.finish(name, parts, {**attempt.to_dict(), "limit": seconds})

Nothing here raises for what is, or is not, on the disk: an unusable file is no verdict, and without a
usable folder there is no memory and one ``problem`` to warn of. Only what was tried is remembered; that a
device is absent never is.
"""

from tflite_hal.verdicts.document import key
from tflite_hal.verdicts.folder import cache_folder
from tflite_hal.verdicts.store import Entry, Verdict, Verdicts, quarantined

__all__ = ["Entry", "Verdict", "Verdicts", "cache_folder", "key", "quarantined"]
