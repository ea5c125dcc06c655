"""What a vendor's tests need: a conformance class for delegates.

    class TestAcme(DelegateConformance):
        delegate = AcmeDelegate
        models = ["model.tflite"]      # of your own, that the delegate takes

Run by pytest. Tests that need the hardware skip, with the probe's reason, where it is missing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from tflite_hal.accuracy import Check, Grade, compare, model_kind
from tflite_hal.contract import check_delegate, check_probe, describe
from tflite_hal.delegate import Delegate, Device, Probe, check_options
from tflite_hal.errors import DelegateError
from tflite_hal.host import HostInfo, probe_host
from tflite_hal.model import Model, read_model
from tflite_hal.remote import remote_delegate
from tflite_hal.runtime import load_runtime
from tflite_hal.selection import Candidate
from tflite_hal.session import Session
from tflite_hal.trial import Terms, builtin_candidate, open_candidate, seeded_inputs
from tflite_hal.worker import Worker, start_worker

__all__ = ["DelegateConformance"]

Arrays = list[np.ndarray[Any, Any]]


class DelegateConformance:
    """Tests that every delegate must pass; subclass it and set ``delegate`` and ``models``.

    Attributes:
        delegate: the class under test.
        models: models it takes, compared with the runtime's built-in kernels.
        hosts: roots of captured machines its probe is tried on; the live machine always is.
        tolerance: largest error of an answer, as :class:`tflite_hal.Check` has it; None is the product's
            own limits.
    """

    delegate: ClassVar[type[Delegate]] = Delegate
    models: ClassVar[Sequence[str | Path]] = ()
    hosts: ClassVar[Sequence[str | Path]] = ()
    tolerance: ClassVar[float | None] = None

    def test_it_keeps_the_contract(self) -> None:
        """Name, API version and base class."""
        check_delegate(self.delegate, self.delegate.__module__)
        assert self.delegate.description
        assert isinstance(self.delegate(), Delegate), "needs a constructor without arguments"

    def test_its_options_are_typed(self) -> None:
        """Each option has a known type and a default that passes its own check."""
        delegate = self.delegate()
        for option in delegate.options:
            assert option.type in {"str", "int", "float", "bool"}, option
            if option.default is not None:
                check_options(delegate, {option.name: option.default})

    def test_unknown_options_are_refused(self) -> None:
        """An option it does not declare is an error that names it."""
        try:
            check_options(self.delegate(), {"no_such_option": 1})
        except DelegateError as error:
            assert "no_such_option" in str(error)
        else:
            raise AssertionError("an undeclared option was accepted")

    def test_probe_never_raises(self) -> None:
        """On the live machine and on every given tree it returns devices and problems, JSON-ready."""
        for host in self._hosts():
            probe = self._asked().probe(host)
            assert isinstance(probe, Probe)
            assert Probe.from_dict(json.loads(json.dumps(probe.to_dict()))) == _plain(probe)
            assert len({device.id for device in probe.devices}) == len(probe.devices), "ids are not unique"

    def test_problems_have_evidence(self) -> None:
        """What can't be used says at which of the known stages and what was seen."""
        for host in self._hosts():
            found = check_probe(self._asked().probe(host), self.delegate.name, "probe")
            assert all(problem.evidence for problem in found.problems)

    def test_configurations_fit_the_options(self) -> None:
        """At least one configuration per model and device, with declared options."""
        for delegate, device, model in self._cases():
            found = list(delegate.configurations(model, device, None))
            assert found
            for configuration in found:
                check_options(delegate, configuration.options)

    def test_it_agrees_with_the_builtin_kernels(self) -> None:
        """Each model's answers to seeded inputs are ok by :mod:`tflite_hal.accuracy`, with every
        configuration."""
        runtime, check = load_runtime(), Check(tolerance=self.tolerance)
        measure = builtin_candidate(runtime)
        for delegate, device, model in self._cases():
            inputs = [seeded_inputs(model.info.inputs, seed) for seed in range(4)]
            right = _answers(measure, model, inputs)
            for configuration in delegate.configurations(model, device, None):
                given = _answers(Candidate(delegate, device, configuration, runtime), model, inputs)
                found = compare(right, given, model.info.outputs, model_kind(model.info), check)
                assert found.grade is Grade.OK, f"{model.name}, {configuration}: {found.reason}"

    def test_close_may_be_called_twice(self) -> None:
        """Closing a closed session does nothing."""
        for delegate, device, model in self._cases():
            configuration = next(iter(delegate.configurations(model, device, None)))
            session = _open(Candidate(delegate, device, configuration, load_runtime()), model)
            session.close()
            session.close()

    def _asked(self) -> Delegate:
        """Return the delegate as the product asks it: foreign ones in a worker, with time limits."""
        if self.delegate.in_process is True:
            return self.delegate()
        return remote_delegate(describe(self.delegate), _worker)

    def _hosts(self) -> Iterator[HostInfo]:
        yield probe_host()
        for root in self.hosts:
            yield probe_host(str(root))

    def _cases(self) -> Iterator[tuple[Delegate, Device, Model]]:
        import pytest

        delegate, host = self._asked(), probe_host()
        found = delegate.probe(host)
        if not found.devices:
            reason = "; ".join(problem.evidence for problem in found.problems) or "no such device here"
            pytest.skip(f"{delegate.name}: {reason}")
        refused = []
        taken = False
        for path in self.models:
            model = read_model(path)
            for device in found.devices:
                why_not = delegate.supports(model, device)
                if why_not is None:
                    taken = True
                    yield delegate, device, model
                else:
                    refused.append(f"{model.name}: {why_not}")
        if not taken:  # what was not tried has not passed
            pytest.skip(f"{delegate.name} takes none of `models`: {'; '.join(refused) or 'there are none'}")


def _plain(probe: Probe) -> Probe:
    return Probe.from_dict(probe.to_dict())


def _open(candidate: Candidate, model: Model) -> Session:
    """Open it where the product would: foreign libraries in a worker."""
    return open_candidate(candidate, model, Terms()).session


def _answers(candidate: Candidate, model: Model, inputs: list[Arrays]) -> list[Arrays]:
    session = _open(candidate, model)
    try:
        call = session.prepare()
        return [call.run(one) for one in inputs]
    finally:
        session.close()


_workers: dict[tuple[str, ...], Worker] = {}  # by what they can import


def _worker() -> Worker:
    """Return a worker to ask: a delegate that hangs or dies must not take the tests with it."""
    worker = _workers.get(tuple(sys.path))
    if worker is None or not worker.alive:
        worker = _workers[tuple(sys.path)] = start_worker("delegate under test", runtime=None)
    return worker
