"""The house keeps its shape: floors, the plugins' imports, sizes, names, documentation."""

import ast
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import tflite_hal

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "tflite_hal"

#: Each room imports only rooms of lower floors, by full module path.
FLOORS = {
    "errors": 0,
    "trust": 0,
    "host": 1,
    "runtime": 1,
    "model": 2,
    "profiles": 2,
    "worker": 2,
    "benchmark": 2,
    "accuracy": 3,
    "tensors": 3,
    "images": 4,
    "session": 3,
    "coverage": 2,
    "compiled": 4,
    "delegate": 4,
    "external": 5,
    "hookspecs": 5,
    "kernels": 5,
    "remote": 5,
    "contract": 6,
    "manager": 7,
    "selection": 6,
    "trial": 8,
    "verdicts": 7,
    "diagnosis": 9,
    "runner": 9,
    "cli": 10,
    "testing": 10,
    "worker_main": 10,
    "__main__": 11,
}
FORBIDDEN_NAMES = {"utils", "common", "base", "types", "helpers", "misc"}
RUNTIMES = {"ai_edge_litert", "tflite_runtime", "tensorflow"}
LONGEST_FILE = 330  # about 300
LONGEST_FUNCTION = 40


def sources() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path.parent.name != "device_profiles")


def plugins() -> list[Path]:
    return sorted((ROOT / "plugins").rglob("*.py"))


def room(path: Path) -> str:
    """The first part below the package: a package is one room."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Yield each imported module and whether the import is at the top of the file."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            names = [node.module or ""]
        for name in names:
            yield name, node in tree.body


def functions(path: Path) -> Iterator[ast.FunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def length(node: ast.FunctionDef) -> int:
    """Lines of code: a docstring and a signature are no complexity."""
    body = node.body[1:] if ast.get_docstring(node) else node.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_every_room_has_a_floor() -> None:
    assert {room(path) for path in sources()} - {"__init__"} == set(FLOORS)


# The front door names every room, and imports each when it is used.
@pytest.mark.parametrize(
    "path",
    [path for path in sources() if room(path) != "__init__"],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_rooms_import_only_lower_floors(path: Path) -> None:
    own = room(path)
    for name, _ in imports(path):
        if name == "tflite_hal":
            continue  # __version__ and images, which is a room of its own
        if name.startswith("tflite_hal."):
            other = name.split(".")[1]
            assert other == own or FLOORS[other] < FLOORS[own], f"{own} imports {other}"


def test_only_the_runtime_room_knows_the_runtimes() -> None:
    for path in sources() + plugins():
        if room(path) == "runtime" if path.is_relative_to(PACKAGE) else False:
            continue
        assert not {name.split(".")[0] for name, _ in imports(path)} & RUNTIMES, path.name


@pytest.mark.parametrize("path", plugins(), ids=lambda path: str(path.relative_to(ROOT / "plugins")))
def test_plugins_use_public_names_only(path: Path) -> None:
    allowed = set(sys.stdlib_module_names) | {"numpy", "tflite_hal"}
    own = path.relative_to(ROOT / "plugins").parts[0].removesuffix(".py")
    for name, top in imports(path):
        if name.split(".")[0] == own:
            continue
        assert not name.startswith("tflite_hal_"), "plugins never import each other"
        assert name.split(".")[0] in allowed or not top, (
            f"{name} is imported at the top: SDKs belong inside methods"
        )
        assert not name.startswith("tflite_hal."), f"{name} is not a public module"
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "tflite_hal":
            assert {alias.name for alias in node.names} <= set(tflite_hal.__all__)


def test_the_core_names_no_accelerator() -> None:
    words = ("edgetpu", "coral", "hexagon", "qnn", "mali", "adreno", "openvino")
    for path in sources():
        if room(path) == "model":
            continue  # tells which custom operator needs which delegate
        text = path.read_text().lower()
        assert not [word for word in words if f'"{word}' in text], path.name


def test_file_and_function_sizes() -> None:
    lengths = []
    for path in sources() + plugins():
        assert path.stem not in FORBIDDEN_NAMES
        lines = len(path.read_text().splitlines())
        assert lines <= LONGEST_FILE, f"{path.name}: {lines} lines: make it a package"
        for node in functions(path):
            assert length(node) <= LONGEST_FUNCTION, f"{path.name}:{node.name}: {length(node)} lines"
            lengths.append(length(node))
    assert statistics.median(lengths) < 10


def test_public_names_are_documented() -> None:
    for path in sources() + plugins():
        tree = ast.parse(path.read_text())
        assert ast.get_docstring(tree), f"{path.name} has no docstring"
        public = [node for node in tree.body if is_public(node)]
        members = [node for owner in public if isinstance(owner, ast.ClassDef) for node in owner.body]
        for node in public + [node for node in members if is_public(node)]:
            assert ast.get_docstring(node), f"{path.name}: {node.name} has no docstring"


def is_public(node: ast.stmt) -> bool:
    return isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_")


def test_all_is_sorted_and_real() -> None:
    names = [name for name in tflite_hal.__all__ if name != "__version__"]
    assert sorted(names, key=lambda n: (n[0].islower(), n)) == names
    for name in tflite_hal.__all__:
        assert getattr(tflite_hal, name) is not None


@pytest.mark.parametrize(
    "module", ["tflite_hal", "tflite_hal.host", "tflite_hal.model", "tflite_hal.delegate"]
)
def test_imports_stay_lean(module: str) -> None:
    heavy = [
        "yaml",
        "psutil",
        "pluggy",
        "importlib.metadata",
        "click",
        "rich",
        "tflite",
        "PIL",
        *sorted(RUNTIMES),
    ]
    code = f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_no_pickle_no_unsafe_yaml_no_shell() -> None:
    for path in sources() + plugins():
        text = path.read_text()
        names = {name.split(".")[0] for name, _ in imports(path)}
        assert not names & {"pickle", "marshal", "shelve", "multiprocessing"}, path.name
        assert "yaml.load(" not in text or "SafeLoader" in text or "Loader=" in text, path.name
        assert "shell=True" not in text, path.name
