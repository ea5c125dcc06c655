"""The order of candidates, and the record of everything that is none."""

from pathlib import Path

import pytest

from tflite_hal import (
    Delegate,
    DelegateError,
    Device,
    Outcome,
    PluginError,
    Probe,
    Problem,
    Runner,
    TfliteHalWarning,
    read_model,
)
from tflite_hal.contract import check_delegate
from tflite_hal.delegate import Configuration, Option
from tflite_hal.kernels import BuiltinKernels
from tflite_hal.profiles import parse_profile
from tflite_hal.runtime import load_runtime
from tflite_hal.selection import Wish, candidates, is_own_cpu
from tflite_hal.trial import Terms

EXAMPLE = Path(__file__).parent / "example_plugin" / "tflite_hal_acme.py"


def make(
    label: str, kind: str, own: bool | tuple[str, ...] = False, problem: str = "", **members
) -> Delegate:
    """A delegate with one device of its kind."""

    class Made(Delegate):
        name = label
        api_version = 1
        in_process = own
        install_hint = "buy one"
        options = (Option("speed", "int"),)

        def probe(self, host) -> Probe:
            if problem:
                return Probe((), (Problem("driver", problem, "load it"),))
            return Probe((Device(f"{kind}:0", kind),) if kind else ())

    for name, member in members.items():
        setattr(Made, name, member)
    return Made()


ALL = [
    make("zeta", "npu", own=True),
    make("alpha", "gpu", own=True),
    make("beta", "tpu", own=True),
    make("quick", "cpu", own=True),
    make("foreign", "npu"),
    BuiltinKernels(),
]


def profile(**keys):
    lines = [f"{key}: {value}" for key, value in keys.items()]
    fact = '[{provenance: inferred, source: ["a test"]}]'
    grounds = ", ".join(f"{key}: {fact}" for key in ("match", *keys))
    text = "\n".join(
        ["schema: 1", "name: test", "title: Test", "match: {arch: x86_64}", *lines, f"sources: {{{grounds}}}"]
    )
    return parse_profile(text, "test.yaml")


@pytest.fixture
def choose(digits: Path):
    def run(delegates=ALL, wish=None, of=None):
        from tflite_hal import probe_host

        host = probe_host()
        probes = {delegate.name: delegate.probe(host) for delegate in delegates}
        found, refused, *_ = candidates(
            read_model(digits), delegates, probes, of, load_runtime(), wish or Wish()
        )
        return [candidate.delegate.name for candidate in found], {a.delegate: a for a in refused}, found

    return run


def test_by_kind_and_name_the_cpu_last(choose) -> None:
    assert choose()[0] == ["beta", "foreign", "zeta", "alpha", "quick", "builtin"]


def test_the_profiles_order_comes_first_the_cpu_stays_last(choose) -> None:
    names, _, _ = choose(of=profile(delegates="[quick, alpha]"))
    assert names == ["alpha", "beta", "foreign", "zeta", "quick", "builtin"]


def test_the_callers_order_comes_before_the_profiles(choose) -> None:
    names, refused, _ = choose(
        wish=Wish(delegates=["foreign", "alpha"]), of=profile(delegates="[alpha, foreign]")
    )
    assert names == ["foreign", "alpha", "quick", "builtin"]
    assert refused["beta"].outcome is Outcome.EXCLUDED


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        (Wish(device="npu"), ["foreign", "zeta", "quick", "builtin"]),
        (Wish(device="gpu:0"), ["alpha", "quick", "builtin"]),
        (Wish(device="npu", exclude=("cpu",)), ["foreign", "zeta"]),
        (Wish(device="npu", cpu_last=False), ["foreign", "zeta"]),
        (Wish(device="cpu", cpu_last=False), ["quick", "builtin"]),
        (Wish(exclude=("tpu", "zeta", "cpu:0")), ["foreign", "alpha", "builtin"]),
        (Wish(exclude=("gpu", "tpu", "npu", "cpu")), []),
    ],
)
def test_what_the_caller_allows(choose, wish: Wish, expected: list[str]) -> None:
    assert choose(wish=wish)[0] == expected


def test_a_problem_is_an_attempt_with_its_remedy(choose) -> None:
    _, refused, _ = choose([make("broken", "npu", problem="no driver"), BuiltinKernels()])
    attempt = refused["broken"]
    assert (attempt.outcome, attempt.stage, attempt.reason, attempt.remedy) == (
        Outcome.UNAVAILABLE,
        "driver",
        "no driver",
        "load it",
    )


def test_an_absent_device_is_told_when_it_was_asked_for(choose) -> None:
    delegates = [make("absent", ""), BuiltinKernels()]
    assert "absent" not in choose(delegates)[1]
    asked = choose(delegates, Wish(delegates=["absent"]))[1]["absent"]
    assert (asked.outcome, asked.remedy) == (
        Outcome.UNAVAILABLE,
        "tflite-hal probe shows what is there; beside a device it needs: buy one",
    )


def test_unsupported_failing_and_of_another_runtime(choose) -> None:
    def broken(self, model, device, profile=None):
        raise KeyError("x")

    _, refused, _ = choose(
        [
            make("picky", "npu", own=True, supports=lambda self, model, device: "no CONV_2D"),
            make("buggy", "npu", own=True, supports=broken),
            make("bad", "npu", own=True, configurations=broken),
            make("other", "npu", own=True, runtimes=("no_such_runtime",)),
        ]
    )
    assert (refused["picky"].outcome, refused["picky"].reason) == (Outcome.UNSUPPORTED, "no CONV_2D")
    assert refused["buggy"].outcome is Outcome.FAILED
    assert "supports() failed: KeyError" in refused["buggy"].reason
    assert "configurations() failed" in refused["bad"].reason
    assert "no_such_runtime only" in refused["other"].reason


def test_options_come_from_profile_configuration_and_caller(choose) -> None:
    own = make(
        "own", "npu", own=True, configurations=lambda *a: [Configuration({"speed": 2}), Configuration()]
    )
    of = profile(options="{own: {speed: 1}}")
    assert [c.configuration.options for c in choose([own], of=of)[2]] == [{"speed": 2}, {"speed": 1}]
    assert [c.configuration.options for c in choose([own], Wish(options={"speed": 3}), of)[2]] == [
        {"speed": 3}
    ]


def test_a_mistake_in_a_profiles_options_costs_that_option_only(digits: Path) -> None:
    own = make("own", "npu", own=True)
    of = profile(options="{own: {colour: 1, speed: 2}}")
    probes = {"own": own.probe(None)}
    found, refused, notes, _ = candidates(read_model(digits), [own], probes, of, load_runtime(), Wish())
    assert [candidate.configuration.options for candidate in found] == [{"speed": 2}]
    assert refused == []
    assert "no option 'colour'" in notes[0]


def test_a_problem_of_another_kind_of_device_is_not_what_was_asked_for(digits: Path) -> None:
    gpu = make("gpu", "")
    type(gpu).probe = lambda self, host: Probe((), (Problem("open", "no GPU here", kind="gpu"),))
    given = (read_model(digits), [gpu], {"gpu": gpu.probe(None)}, None, load_runtime())
    assert candidates(*given, Wish(device="tpu")).refused[0].outcome is Outcome.EXCLUDED
    assert candidates(*given, Wish(device="gpu")).refused[0].outcome is Outcome.UNAVAILABLE


def test_the_plain_cpu_is_not_a_vendors_engine(choose) -> None:
    engine = make("engine", "cpu")
    names, refused, _ = choose([engine, BuiltinKernels()], Wish(device="cpu", cpu_last=False))
    assert names == ["builtin"]
    assert "not one of the runtime's own" in refused["engine"].reason
    assert choose([engine, BuiltinKernels()])[0] == ["engine", "builtin"]
    assert choose([engine, BuiltinKernels()], Wish(delegates=["engine"], device="cpu"))[0][0] == "engine"


def test_an_engine_that_may_live_in_the_application_is_not_the_runtimes_own_cpu(choose) -> None:
    engine = make("engine", "cpu", own=("cpu",))
    names, refused, found = choose([engine, BuiltinKernels()], Wish(device="cpu", cpu_last=False))
    assert names == ["builtin"]
    assert "not one of the runtime's own" in refused["engine"].reason
    names, _, found = choose([engine, BuiltinKernels()])
    assert names == ["engine", "builtin"]
    assert not is_own_cpu(found[0].delegate, found[0].device)
    # The CPU that always stays a candidate is the runtime's own.
    assert choose([engine, BuiltinKernels()], Wish(delegates=["other"]))[0] == ["builtin"]


@pytest.mark.parametrize(
    ("own", "kind", "stays"),
    [
        (False, "cpu", True),
        (True, "npu", False),
        (("cpu",), "cpu", False),
        (("cpu",), "npu", True),
        ((), "cpu", True),
    ],
)
def test_where_sessions_live_is_told_by_the_kind_of_device(choose, own, kind: str, stays: bool) -> None:
    (candidate,) = choose([make("engine", kind, own=own)])[2]
    assert Terms().stays_in_worker(candidate) == stays
    several = candidate._replace(configuration=Configuration(threads=2))
    assert Terms().stays_in_worker(several) == (own is not True)
    assert Terms(isolate=True).stays_in_worker(candidate)
    assert not Terms(isolate=False).stays_in_worker(candidate)


@pytest.mark.parametrize("own", ["cpu", ("cpu", "fpga"), 1, None])
def test_what_may_live_in_the_application_is_checked(own) -> None:
    with pytest.raises(PluginError, match="in_process"):
        check_delegate(type(make("engine", "cpu", own=own)), "a test")


def test_threads_that_nothing_takes_are_told(digits: Path) -> None:
    own = make("own", "npu", own=True)
    given = (read_model(digits), [own], {"own": own.probe(None)}, None, load_runtime())
    assert candidates(*given, Wish(threads=2)).notes == ["threads=2 has no effect on own"]


def test_the_stage_of_a_failure_is_recorded(install, digits: Path) -> None:
    text = EXAMPLE.read_text().replace(
        "        return InterpreterSession(model, runtime, default_delegates=False)",
        "        session = InterpreterSession(model, runtime, default_delegates=False)\n"
        "        session.prepare = lambda *arguments: 1 / 0\n        return session",
    )
    install("acme", text)
    with pytest.warns(TfliteHalWarning), Runner.auto(digits, delegates=["acme"]) as runner:
        attempt = runner.selection.attempts[0]
        assert (attempt.delegate, attempt.stage, attempt.outcome) == ("acme", "run", Outcome.FAILED)
        assert "ZeroDivisionError" in attempt.reason


def test_a_profiles_environment_is_there_before_the_plugin(install, tmp_path: Path, digits: Path) -> None:
    text = EXAMPLE.read_text().replace(
        "        return InterpreterSession(",
        "        import os\n\n        assert os.environ.get('ACME_FIRMWARE') == '/opt/acme', 'no firmware'\n"
        "        return InterpreterSession(",
    )
    install("acme", text)
    file = tmp_path / "acme-board.yaml"
    fact = '[{provenance: inferred, source: ["a test"]}]'
    file.write_text(
        "schema: 1\nname: acme-board\ntitle: Acme\nmatch: {arch: x86_64}\n"
        "environment: {acme: {ACME_FIRMWARE: /opt/acme}}\n"
        f"sources: {{match: {fact}, environment: {fact}}}\n"
    )
    file.chmod(0o600)
    with Runner(digits, delegate="acme", profile=file) as runner:
        assert runner.delegate == "acme"
        assert runner.selection.profile == "acme-board"
    with pytest.raises(DelegateError, match="no firmware"):
        Runner(digits, delegate="acme")
