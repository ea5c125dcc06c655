"""The support bundle: it replays, tells nothing personal, and never takes another file's place."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tflite_hal.cli import main
from tflite_hal.host import HostInfo, probe_host
from tflite_hal.host.bundle import Scrubber, packed_files, scrubber_for

HOSTS = sorted(path for path in (Path(__file__).resolve().parent / "hosts").iterdir() if path.is_dir())
CAPTURES = Path(__file__).resolve().parents[1].parent / "shared" / "captures"
TOP = "tflite-hal-bundle"
#: Facts of a process, and where it looked: no file tells them again.
OF_THE_PROCESS = {"root", "live", "python", "pointer_bits", "page_size", "groups"}


def call(*arguments: object, status: int = 0) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == status, (result.output, result.exception)
    return result


def members(file: Path) -> dict[str, bytes | None]:
    with tarfile.open(file) as archive:
        assert all(one.isreg() or one.isdir() for one in archive), "nothing that could lead out of the folder"
        return {
            one.name.removeprefix(f"{TOP}/"): extracted.read()
            if (extracted := archive.extractfile(one))
            else None
            for one in archive
        }


def unpacked(file: Path, folder: Path) -> Path:
    for name, content in members(file).items():
        place = folder / TOP / name
        assert place.resolve().is_relative_to(folder.resolve())
        place.parent.mkdir(parents=True, exist_ok=True)
        place.mkdir(exist_ok=True) if content is None else place.write_bytes(content)
    return folder / TOP


def facts(host: HostInfo) -> dict[str, object]:
    return {name: value for name, value in host.to_dict().items() if name not in OF_THE_PROCESS}


# --- replay --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tree", HOSTS, ids=lambda path: path.name)
def test_a_bundle_replays_the_machine_and_its_delegates(tree: Path, tmp_path: Path) -> None:
    file = tmp_path / "bundle.tar.gz"
    told = call("probe", "--root", tree, "--json", "--bundle", file)
    before = json.loads(told.stdout)
    assert f"wrote {file} with " in told.stderr
    again = unpacked(file, tmp_path)
    assert facts(probe_host(again)) == facts(probe_host(tree))
    after = json.loads(call("probe", "--root", again, "--json").stdout)
    assert {**after, "root": ""} == {**before, "root": ""}, "profile, devices and problems too"
    report = json.loads((again / "probe.json").read_text())
    assert set(report) == {"versions", *before}
    assert {**report, "root": ""} == {"versions": report["versions"], **before, "root": ""}
    assert report["versions"]["tflite-hal"]
    assert "delegate" in (again / "probe.txt").read_text()


def test_every_capture_replays(tmp_path: Path) -> None:
    if not CAPTURES.is_dir():
        pytest.skip("captured machines are not at shared/captures beside the checkout")
    for root in sorted(CAPTURES.glob("*/root")):
        host, folder = probe_host(root), tmp_path / root.parent.name
        for name, content in packed_files(host, scrubber_for(host)):
            place = folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.mkdir(exist_ok=True) if content is None else place.write_bytes(content)
        folder.mkdir(exist_ok=True)
        assert facts(probe_host(folder)) == facts(host), root.parent.name


def test_this_machine_replays(tmp_path: Path) -> None:
    file = tmp_path / "bundle.tar.gz"
    call("probe", "--bundle", file)
    again = unpacked(file, tmp_path)
    report, host = json.loads((again / "probe.json").read_text()), probe_host(again)
    assert report["live"] is True
    assert [one["name"] for one in report["runtimes"]] == ["ai_edge_litert", "tflite_runtime", "tensorflow"]
    for name in ("arch", "memory_bytes", "nodes", "pci", "usb", "board", "dmi", "os", "kernel", "virtual"):
        assert host.to_dict()[name] == report[name], name
    for name in ("model", "online", "features", "clusters"):
        assert host.to_dict()["cpu"][name] == report["cpu"][name], name


# --- nothing personal ----------------------------------------------------------------------------------

#: Secrets that are known by a file of the machine, and where that file is.
KNOWN = {
    "etc/hostname": "gartenlaube",
    "etc/machine-id": "zz-machine-0815-id",
    "sys/class/dmi/id/product_serial": "PF-3XK9-QQ",
    "sys/class/dmi/id/product_uuid": "uu-product-77",
    "sys/class/dmi/id/board_serial": "L1HF99M04Z",
    "proc/device-tree/serial-number": "dt-serial-4711",
    "sys/bus/usb/devices/9-9/serial": "USB-SN-000777",
    "sys/class/net/eth0/address": "de:ad:be:ef:00:01",
}
#: Secrets that are known by their form.
FORMS = [
    "12345678-9abc-4def-8123-456789abcdef", "12345678_9abc_4def_8123_456789abcdef",
    "0123456789abcdef0123456789abcdef", "00000000deadbee5", "02:42:ac:11:00:02", "02-42-AC-11-00-02",
    "192.168.178.23", "10.1.2.3", "fe80::1ff:fe23:4567:890a", "2001:db8:85a3:0:0:8a2e:370:7334",
    "/home/mathilda", "/Users/mathilda", "ffffffff8a2b3c4d",
]  # fmt: skip
PLANTED = "\n".join(["", f"Serial\t\t: sn-{'q' * 6}", *KNOWN.values(), *FORMS, *FORMS[::-1], ""])


@pytest.mark.parametrize("tree", [tree for tree in HOSTS if tree.name != "empty"], ids=lambda path: path.name)
def test_what_identifies_is_taken_out_of_every_file(tree: Path, tmp_path: Path) -> None:
    root, file = tmp_path / "root", tmp_path / "bundle.tar.gz"
    shutil.copytree(tree, root)
    extra = {
        "proc/self/cgroup": f"0::/user.slice/user-1007.slice/docker-{'4f' * 32}.scope\n",
        "proc/1/cgroup": "0::/\n",
        "proc/modules": "apex 1 0 - Live 0xffffffffc0a1b000\n",
        "sys/class/dmi/id/sys_vendor": "Maker",
        "sys/class/dmi/id/product_name": "Product",
        "sys/class/dmi/id/bios_vendor": "Bios",
        "sys/devices/platform/soc/soc:firmware/get_throttled": "0",
        "run/systemd/container": "lxc",
        **KNOWN,
    }
    for name, text in extra.items():
        place = root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text + "\n")
    for place in root.rglob("*"):
        if place.is_file() and str(place.relative_to(root)) not in KNOWN and place.name != "driver":
            place.write_bytes(place.read_bytes().rstrip(b"\n") + PLANTED.encode())
    call("probe", "--root", root, "--bundle", file)
    packed = members(file)
    assert {"proc/self/cgroup", "sys/class/dmi/id/sys_vendor", "probe.json", "probe.txt"} <= set(packed)
    assert not set(packed) & set(KNOWN), "what only serves to know a secret is not packed"
    secrets = [*KNOWN.values(), *FORMS, "qqqqqq", "mathilda", "1007", "4f4f4f4f", "c0a1b000"]
    for name, content in packed.items():
        shown = f"{name}\n{(content or b'').decode('utf-8', 'surrogateescape')}".lower()
        assert not [secret for secret in secrets if secret.lower() in shown], name
    assert any(b"[removed]" in (content or b"") for content in packed.values())


def test_the_archive_itself_tells_nothing(tmp_path: Path) -> None:
    file = tmp_path / "mathilda.tar.gz"
    call("probe", "--root", HOSTS[0], "--bundle", file)
    assert b"mathilda" not in file.read_bytes(), "gzip can keep a file's name"
    with tarfile.open(file) as archive:
        for one in archive:
            assert (one.uid, one.gid, one.uname, one.gname, one.mtime) == (0, 0, "", "", 0)


def test_the_names_of_a_live_machine_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "gartenlaube.example.org")
    monkeypatch.setenv("USER", "mathilda")
    scrubber = scrubber_for(probe_host())
    text = "Gartenlaube, gartenlaube.example.org and mathilda's group; mathildas and root stay"
    assert scrubber.text(text) == "[removed], [removed] and [removed]'s group; mathildas and root stay"


@pytest.mark.parametrize(
    "text",
    [
        "0::/kubepods/besteffort/pod{dashed}/x", "0::/kubepods.slice/kubepods-pod{underscored}.slice",
        "kubepods-besteffort-pod{underscored}.slice:cri-containerd", "uuid{dashed}", "{dashed}",
    ],
)  # fmt: skip
def test_the_ids_of_pods_are_taken_out_and_kubernetes_stays(text: str) -> None:
    dashed = "4f6b1c2e-93a1-4d0e-9a55-0d1b6f6a7c11"
    given = text.format(dashed=dashed, underscored=dashed.replace("-", "_"))
    assert Scrubber([]).text(given) == text.replace("{underscored}", "{dashed}").replace(
        "{dashed}", "[removed]"
    )


def test_homes_in_the_names_of_members_are_no_ones_and_stay_apart(tmp_path: Path) -> None:
    files = {
        "home/bob/icd/driver.json": "bob's",
        "home/alice/icd/driver.json": "alice's",
        "home/alice/icd/driver.json-2": "her other",
        "home/carol/icd": "a file where others have a folder",
        "var/home/bob/x": "elsewhere",
        "usr/share/12345678-9abc-4def-8123-456789abcdef": "one",
        "usr/share/22345678-9abc-4def-8123-456789abcdef": "two",
    }
    host = probe_host(tmp_path)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
        host.read(f"/{name}")
    packed = list(packed_files(host, Scrubber([])))
    names = [name for name, _ in packed]
    assert len(set(names)) == len(names)
    contents = [(content or b"").decode() for _, content in packed]
    assert set(files.values()) <= set(contents)
    assert not [name for name in names if any(word in name for word in ("bob", "alice", "carol", "4def"))]
    assert "home/[removed]/icd/driver.json" in names
    for name, content in packed:  # it can be unpacked: nothing is below a file
        place = tmp_path / "again" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.mkdir(exist_ok=True) if content is None else place.write_bytes(content)


def test_keys_that_become_the_same_text_stay_apart() -> None:
    plain = Scrubber(["gartenlaube"]).plain(
        {"gartenlaube": 1, "/home/bob": 2, "/home/eve": 3, "[removed]": 4}
    )
    assert plain == {"[removed]": 1, "/home/[removed]": 2, "/home/[removed]-2": 3, "[removed]-2": 4}


@pytest.mark.parametrize(
    "text",
    [
        "0000:01:00.0", "0::/system.slice", "1-1.2", "12:34:56", "6.6.31+rpt-rpi-2712", "MemTotal: 16384 kB",
        "raspberrypi,5-model-b", "ai-edge-litert 2.3.0", "/dev/bus/usb/001/004", "Intel(R) Core(TM) i7-1370P",
        "5.15.153.1-microsoft-standard-WSL2", "18d1:9302", "rv64imafdc", "127.0.0.1", "serial port",
    ],
)  # fmt: skip
def test_facts_are_left_alone(text: str) -> None:
    assert Scrubber([]).text(text) == text


def test_a_name_that_is_the_boards_own_is_no_ones(tmp_path: Path) -> None:
    for name, text in {
        "etc/hostname": "rock-5b\n",
        "proc/device-tree/compatible": "radxa,rock-5b\0rockchip,rk3588\0",
        "sys/bus/usb/devices/usb1/serial": "0000:01:00.0\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    host = probe_host(tmp_path)
    packed = dict(packed_files(host, scrubber_for(host)))
    assert packed["proc/device-tree/compatible"] == b"radxa,rock-5b\0rockchip,rk3588\0"
    assert scrubber_for(host).text("0000:01:00.0") == "0000:01:00.0", "a bus has its slot for a serial number"


def test_what_is_not_utf_8_is_kept() -> None:
    assert Scrubber(["gartenlaube"]).content(b"\xff\xe4 gartenlaube \0") == b"\xff\xe4 [removed] \0"


# --- the file ------------------------------------------------------------------------------------------


def test_a_file_that_is_there_is_kept_without_force(tmp_path: Path) -> None:
    file = tmp_path / "bundle.tar.gz"
    file.write_text("precious")
    refused = call("probe", "--root", HOSTS[0], "--bundle", file, status=2)
    assert refused.stderr.splitlines() == [
        f"tflite-hal: {file} is there already (to fix it: give another name, or --force to replace it)"
    ]
    assert file.read_text() == "precious"
    call("probe", "--root", HOSTS[0], "--bundle", file, "--force")
    assert "probe.json" in members(file)
    assert [one.name for one in tmp_path.iterdir()] == ["bundle.tar.gz"], "what was written aside is gone"


@pytest.mark.skipif(os.name == "nt", reason="symbolic links")
def test_a_dangling_link_is_not_followed(tmp_path: Path) -> None:
    link = tmp_path / "bundle.tar.gz"
    link.symlink_to(tmp_path / "elsewhere")
    call("probe", "--root", HOSTS[0], "--bundle", link, status=2)
    call("probe", "--root", HOSTS[0], "--bundle", link, "--force")
    assert not link.is_symlink()
    assert not (tmp_path / "elsewhere").exists()


def test_what_can_not_be_written_is_one_line(tmp_path: Path) -> None:
    nowhere = tmp_path / "missing" / "bundle.tar.gz"
    (line,) = call("probe", "--root", HOSTS[0], "--bundle", nowhere, status=2).stderr.splitlines()
    assert line.startswith(f"tflite-hal: {nowhere} can't be written: ")
    call("probe", "--root", HOSTS[0], "--bundle", tmp_path, "--force", status=2)
    assert not list(tmp_path.iterdir())
    assert "--force is for --bundle" in call("probe", "--force", status=2).stderr


def test_what_delegates_read_is_packed_too(tmp_path: Path) -> None:
    (tree,) = [path for path in HOSTS if path.name == "x86-coral-pcie"]
    file = tmp_path / "bundle.tar.gz"
    call("probe", "--root", tree, "--bundle", file)
    packed = members(file)
    assert packed["dev/apex_0"] == b"", "a node's place, not its content"
    assert packed["sys/bus/pci/devices/0000:01:00.0/driver"] == b"./apex", "a link, as a small file"
    assert io.BytesIO(packed["probe.txt"] or b"").readline()
