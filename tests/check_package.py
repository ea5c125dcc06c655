"""Builds the sdist, the wheel from the sdist, installs it into an empty environment and runs it from /.

Not a test module: it builds environments, which takes a minute. ``make package`` runs it.
"""

import json
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def run(*command: str, cwd: str = "/") -> str:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHONPATH", "TFLITE_HAL"))}
    done = subprocess.run(command, cwd=cwd, env=env, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder))
        check(Path(folder))


def build(folder: Path) -> None:
    run(sys.executable, "-m", "build", "--sdist", "--outdir", str(folder), str(ROOT))
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "source")
    (source,) = (folder / "source").iterdir()
    run(sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(source))


def check(folder: Path) -> None:
    (wheel,) = folder.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    for source in (ROOT / "tflite_hal" / "testing").glob("*.[ch]"):
        assert f"tflite_hal/testing/{source.name}" in names, f"{source.name} is not in the wheel"
    plugins = {path.stem for path in (ROOT / "plugins").glob("tflite_hal_*")}
    own = {"tflite_hal", *(path.name for path in (ROOT / "plugins").glob("tflite_hal_*"))}
    stray = {top for top in tops if top not in own and not top.endswith(".dist-info")}
    assert not stray, f"the wheel would install {stray} beside the package"
    run(sys.executable, "-m", "venv", str(folder / "venv"))
    scripts = folder / "venv" / "bin"
    run(
        str(scripts / "python"),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        f"{wheel}[image]",
    )
    listed = json.loads(run(str(scripts / "tflite-hal"), "plugins", "--json"))
    assert {plugin["module"] for plugin in listed} == plugins, listed
    assert not any(plugin["problem"] for plugin in listed), listed
    profiles = json.loads(run(str(scripts / "tflite-hal"), "profiles", "--json"))
    expected = {path.stem for path in (ROOT / "device_profiles").glob("*.yaml")}
    assert {profile["name"] for profile in profiles["profiles"]} == expected, profiles
    example = str(ROOT / "examples" / "digits_int8.tflite")
    picture = str(ROOT / "examples" / "digit_7.png")
    answer = json.loads(run(str(scripts / "tflite-hal"), "run", example, "--input", picture, "--json"))
    assert answer["selection"]["winner"], answer
    print(f"{wheel.name}: {len(plugins)} plugins, {len(expected)} profiles, runs from /")


if __name__ == "__main__":
    main()
