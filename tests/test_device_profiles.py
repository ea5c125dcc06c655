"""The device profiles that ship: each loads, matches what it is for, and tells where its facts are from."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from tflite_hal.host import probe_host
from tflite_hal.kernels import BuiltinKernels
from tflite_hal.manager import Manager
from tflite_hal.profiles import (
    PROVENANCE,
    Match,
    accelerators,
    json_schema,
    load_profiles,
    match_profile,
    quirks,
    unknown_delegates,
)

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "device_profiles"
FILES = sorted(FOLDER.glob("*.yaml"))
HOSTS = sorted(path for path in (Path(__file__).parent / "hosts").glob("*") if path.is_dir())
CAPTURES = ROOT.parent / "shared" / "captures"
PROFILES, ERRORS = load_profiles()
FOR_MACHINES = [profile for profile in PROFILES if profile.match != Match()]
#: Plugins of the checkout that an editable install of an earlier one does not know.
COMING = {"openvino"}
#: Without a match by the model: others begin as theirs, or each machine has its own.
NO_MODEL = {"khadas-vim3", "odroid-m1", "snapdragon-x", "renesas-rz-v2l"}
#: What each captured machine is, as far as the capture tells; None where it tells too little.
MACHINES = {
    "android-galaxy-s9-global": "generic-linux-arm64",  # a 32-bit view, which lists no dot products
    "android-huawei-mate-20": "generic-linux-arm64",
    "android-nexus-s": "generic-linux-armv7",
    "android-pixel-8": "generic-linux-arm64-i8mm",
    "android-zenfone-2": "generic-linux-x86-64",
    "cpuinfo-beagleboard-xm": "generic-linux-armv7",
    "cpuinfo-jetson-tx1": "generic-linux-arm64",
    "cpuinfo-raspberrypi2": "generic-linux-armv7",
    "ghw-amd64-accel": "generic-linux-x86-64-vnni",
    "ghw-amd64-offlineCPUs": "generic-linux-x86-64-avx2",
    "ghw-arm64-c288e0776090cd55": "generic-linux-arm64-dotprod",
    "hw-rpi3b-opensuse": None,
    "hwloc-20em64t-hybrid-1p6c2t_2ca4co1t": "generic-linux-x86-64-vnni",
    "hwloc-2arm-2c": "generic-linux-armv7",
    "issue-coral-pcie-no-devnode": "coral-pcie",
    "issue-coral-pcie-no-driver": "coral-pcie",
    "issue-coral-usb-bootloader": "coral-usb",
    "issue-coral-usb-runtime": "coral-usb",
    "sbc-a311d": "generic-linux-arm64",
    "sbc-apple-m1": "generic-linux-arm64-dotprod",
    "sbc-graviton3": "generic-linux-arm64-i8mm",
    "sbc-imx8m": "generic-linux-arm64",
    "sbc-jetson-nano": "generic-linux-arm64",
    "sbc-qrb5165": "qualcomm-rb5",
    "sbc-rk3588": "generic-linux-arm64-dotprod",
    "sbc-rpi-zero": None,
    "sbc-rpi-zero2": "raspberry-pi-zero-2-w",
    "sbc-rpi4": "raspberry-pi-4",
    "sbc-rpi5": "raspberry-pi-5",
    "sbc-stm32mp1": "generic-linux-armv7",
    "sbc-ti-am625": "generic-linux-arm64",
    "sbctxt-imx8mp-evk": "nxp-imx8mp",
    "sbctxt-rock5b": "radxa-rock-5b",
    "sbctxt-rpi5-full": "raspberry-pi-5",
}
#: What the device trees of boards say: their strings, their model, and the profile they are for.
BOARDS = [
    ("raspberrypi,model-zero-2-w brcm,bcm2837", "Raspberry Pi Zero 2 W", "raspberry-pi-zero-2-w"),
    ("raspberrypi,3-model-b brcm,bcm2837", "Raspberry Pi 3 Model B", "raspberry-pi-3"),
    ("raspberrypi,3-model-b-plus brcm,bcm2837", "Raspberry Pi 3 Model B+", "raspberry-pi-3"),
    ("raspberrypi,4-model-b brcm,bcm2711", "Raspberry Pi 4 Model B", "raspberry-pi-4"),
    ("raspberrypi,400 brcm,bcm2711", "Raspberry Pi 400", "raspberry-pi-4"),
    ("raspberrypi,4-compute-module brcm,bcm2711", "Raspberry Pi Compute Module 4 IO Board", "raspberry-pi-4"),
    ("raspberrypi,5-model-b brcm,bcm2712", "Raspberry Pi 5", "raspberry-pi-5"),
    ("google,imx8mq-phanbell fsl,imx8mq", "Google i.MX8MQ Phanbell", "coral-dev-board"),
    ("nvidia,p3450-0000 nvidia,tegra210", "NVIDIA Jetson Nano Developer Kit", "jetson-nano"),
    (
        "nvidia,p3541-0000 nvidia,p3450-0000 nvidia,tegra210",
        "NVIDIA Jetson Nano 2GB Developer Kit",
        "jetson-nano",
    ),
    (
        "nvidia,p3509-0000+p3668-0000 nvidia,tegra194",
        "NVIDIA Jetson Xavier NX Developer Kit (SD-card)",
        "jetson-xavier-nx",
    ),
    (
        "nvidia,p3509-0000+p3668-0001 nvidia,tegra194",
        "NVIDIA Jetson Xavier NX Developer Kit (eMMC)",
        "jetson-xavier-nx",
    ),
    (
        "nvidia,p3768-0000+p3767-0005 nvidia,p3767-0005 nvidia,tegra234",
        "NVIDIA Jetson Orin Nano Developer Kit",
        "jetson-orin",
    ),
    (
        "nvidia,p3768-0000+p3767-0000 nvidia,p3767-0000 nvidia,tegra234",
        "NVIDIA Jetson Orin NX Engineering Reference Developer Kit",
        "jetson-orin",
    ),
    (
        "nvidia,p3737-0000+p3701-0000 nvidia,p3701-0000 nvidia,tegra234",
        "NVIDIA Jetson AGX Orin Developer Kit",
        "jetson-orin",
    ),
    (
        "nvidia,p3737-0000+p3701-0008 nvidia,p3701-0008 nvidia,tegra234",
        "NVIDIA Jetson AGX Orin Developer Kit",
        "jetson-orin",
    ),
    ("fsl,imx8mp-evk fsl,imx8mp", "NXP i.MX8MPlus EVK board", "nxp-imx8mp"),
    ("fsl,imx93-11x11-evk fsl,imx93", "NXP i.MX93 11X11 EVK board", "nxp-imx93"),
    ("fsl,imx93-11x11-frdm fsl,imx93", "NXP i.MX93 11X11 FRDM board", "nxp-imx93"),
    ("fsl,imx95-19x19-evk fsl,imx95", "NXP i.MX95 19X19 board", "nxp-imx95"),
    ("fsl,imx95-15x15-evk fsl,imx95", "NXP i.MX95 15X15 board", "nxp-imx95"),
    (
        "toradex,verdin-imx8mp-wifi-dev toradex,verdin-imx8mp-wifi toradex,verdin-imx8mp fsl,imx8mp",
        "Toradex Verdin iMX8M Plus WB on Verdin Development Board",
        "toradex-verdin-imx8mp",
    ),
    (
        "toradex,verdin-imx8mp-nonwifi-dev toradex,verdin-imx8mp-nonwifi toradex,verdin-imx8mp fsl,imx8mp",
        "Toradex Verdin iMX8M Plus on Verdin Development Board",
        "toradex-verdin-imx8mp",
    ),
    (
        "toradex,verdin-imx8mp-wifi-dahlia toradex,verdin-imx8mp-wifi toradex,verdin-imx8mp fsl,imx8mp",
        "Toradex Verdin iMX8M Plus WB on Dahlia Board",
        "toradex-verdin-imx8mp",
    ),
    (
        "toradex,verdin-am62-wifi-dev toradex,verdin-am62-wifi toradex,verdin-am62 ti,am625",
        "Toradex Verdin AM62 WB on Verdin Development Board",
        "toradex-verdin-am62",
    ),
    (
        "toradex,verdin-am62p-wifi-dev toradex,verdin-am62p-wifi toradex,verdin-am62p ti,am62p5",
        "Toradex Verdin AM62P WB on Verdin Development Board",
        "toradex-verdin-am62",
    ),
    (
        "toradex,verdin-imx8mm-wifi-dev toradex,verdin-imx8mm-wifi toradex,verdin-imx8mm fsl,imx8mm",
        "Toradex Verdin iMX8M Mini WB on Verdin Development Board",
        "toradex-verdin-imx8mm",
    ),
    (
        "qcom,qcs6490-rb3gen2 qcom,qcm6490",
        "Qualcomm Technologies, Inc. Robotics RB3gen2",
        "qualcomm-rb3-gen2",
    ),
    ("thundercomm,rubikpi3 qcom,qcm6490", "Thundercomm RUBIK Pi 3", "rubik-pi-3"),
    ("radxa,dragon-q6a qcom,qcm6490", "Radxa Dragon Q6A", "rubik-pi-3"),
    ("qcom,qrb5165-rb5 qcom,sm8250", "Qualcomm Technologies, Inc. Robotics RB5", "qualcomm-rb5"),
    (
        "qcom,qcs9100-ride qcom,qcs9100 qcom,sa8775p",
        "Qualcomm Technologies, Inc. Lemans Ride",
        "qualcomm-dragonwing-iq",
    ),
    ("qcom,qcs8300-ride qcom,qcs8300", "Qualcomm Technologies, Inc. QCS8300 Ride", "qualcomm-dragonwing-iq"),
    (
        "qcom,qcs615-ride qcom,qcs615 qcom,sm6150",
        "Qualcomm Technologies, Inc. QCS615 Ride (IQ-615 Beta EVK)",
        "qualcomm-dragonwing-iq",
    ),
    ("asus,vivobook-s15 qcom,x1e80100", "ASUS Vivobook S 15", "snapdragon-x"),
    (
        "lenovo,thinkpad-t14s-lcd lenovo,thinkpad-t14s qcom,x1e78100 qcom,x1e80100",
        "Lenovo ThinkPad T14s Gen 6 (LCD)",
        "snapdragon-x",
    ),
    ("lenovo,thinkpad-t14s qcom,x1e78100 qcom,x1e80100", "Lenovo ThinkPad T14s Gen 6", "snapdragon-x"),
    (
        "qcom,x1e001de-devkit qcom,x1e001de qcom,x1e80100",
        "Qualcomm Technologies, Inc. X1E001DE Snapdragon Devkit for Windows",
        "snapdragon-x",
    ),
    (
        "lenovo,thinkpad-t14s-oled lenovo,thinkpad-t14s qcom,x1e78100 qcom,x1e80100",
        "Lenovo ThinkPad T14s Gen 6 (OLED)",
        "snapdragon-x",
    ),
    ("asus,zenbook-a14-ux3407ra qcom,x1e80100", "ASUS Zenbook A14 (UX3407RA)", "snapdragon-x"),
    ("qcom,x1e80100-crd qcom,x1e80100", "Qualcomm Technologies, Inc. X1E80100 CRD", "snapdragon-x"),
    ("dell,inspiron-14-plus-7441 qcom,x1e80100", "Dell Inspiron 14 Plus 7441", "snapdragon-x"),
    ("dell,latitude-7455 qcom,x1e80100", "Dell Latitude 7455", "snapdragon-x"),
    ("dell,xps13-9345 qcom,x1e80100", "Dell XPS 13 9345", "snapdragon-x"),
    ("hp,elitebook-ultra-g1q qcom,x1e80100", "HP EliteBook Ultra G1q", "snapdragon-x"),
    ("hp,omnibook-x14 qcom,x1e80100", "HP Omnibook X 14-fe0", "snapdragon-x"),
    ("lenovo,yoga-slim7x qcom,x1e80100", "Lenovo Yoga Slim 7x", "snapdragon-x"),
    ("medion,sprchrgd14s1 qcom,x1e78100 qcom,x1e80100", "Medion SPRCHRGD 14 S1", "snapdragon-x"),
    (
        "microsoft,denali-oled microsoft,denali qcom,x1e80100",
        "Microsoft Surface Pro 11th Edition (OLED)",
        "snapdragon-x",
    ),
    ("microsoft,romulus13 qcom,x1e80100", "Microsoft Surface Laptop 7 (13.8 inch)", "snapdragon-x"),
    ("radxa,rock-5b rockchip,rk3588", "Radxa ROCK 5B", "radxa-rock-5b"),
    ("radxa,rock-5b-plus rockchip,rk3588", "Radxa ROCK 5B+", "radxa-rock-5b"),
    ("xunlong,orangepi-5 rockchip,rk3588s", "Xunlong Orange Pi 5", "orange-pi-5"),
    ("xunlong,orangepi-5-plus rockchip,rk3588", "Xunlong Orange Pi 5 Plus", "orange-pi-5"),
    ("xunlong,orangepi-5-max rockchip,rk3588", "Xunlong Orange Pi 5 Max", "orange-pi-5"),
    ("radxa,rock-5a rockchip,rk3588s", "Radxa ROCK 5A", "rk3588-npu-off"),
    ("khadas,edge2 rockchip,rk3588s", "Khadas Edge2", "rk3588-npu-off"),
    ("hardkernel,odroid-m2 rockchip,rk3588s", "Hardkernel ODROID-M2", "rk3588-npu-off"),
    ("pine64,quartz64-b rockchip,rk3566", "Pine64 Quartz64 Model B", "rockchip-rk356x"),
    ("radxa,rock3a rockchip,rk3568", "Radxa ROCK 3A", "rockchip-rk356x"),
    (
        "xunlong,orangepi-3b-v1.1 xunlong,orangepi-3b rockchip,rk3566",
        "Xunlong Orange Pi 3B v1.1",
        "rockchip-rk356x",
    ),
    ("radxa,zero-3w rockchip,rk3566", "Radxa ZERO 3W", "rockchip-rk356x"),
    ("hardkernel,odroid-m1 rockchip,rk3568", "Hardkernel ODROID-M1", "odroid-m1"),
    ("rockchip,rk3568-odroid-m1 rockchip,rk3568", "Hardkernel ODROID-M1", "odroid-m1"),
    ("armsom,sige5 rockchip,rk3576", "ArmSoM Sige5", "rockchip-rk3576"),
    ("radxa,rock-4d rockchip,rk3576", "Radxa ROCK 4D", "rockchip-rk3576"),
    ("khadas,edge-2l rockchip,rk3576", "Khadas Edge-2L", "rockchip-rk3576"),
    ("khadas,vim3 amlogic,a311d amlogic,g12b", "Khadas VIM3", "khadas-vim3"),
    ("khadas,vim3l amlogic,sm1", "Khadas VIM3L", "khadas-vim3l"),
    ("khadas,vim4 amlogic,a311d2 amlogic,t7", "Khadas VIM4", "khadas-vim4"),
    ("hardkernel,odroid-n2-plus amlogic,s922x amlogic,g12b", "Hardkernel ODROID-N2Plus", "odroid-n2-plus"),
    ("beagle,j721e-beagleboneai64 ti,j721e", "BeagleBoard.org BeagleBone AI-64", "beaglebone-ai-64"),
    ("beagle,am67a-beagley-ai ti,j722s", "BeagleBoard.org BeagleY-AI", "beagley-ai"),
    ("ti,am62a7-sk ti,am62a7", "Texas Instruments AM62A7 SK", "ti-am62a"),
    ("ti,am68-sk ti,j721s2", "Texas Instruments AM68 SK", "ti-am68"),
    ("ti,am69-sk ti,j784s4", "Texas Instruments AM69 SK", "ti-am69"),
    ("ti,j721e-sk ti,j721e", "Texas Instruments J721E SK", "ti-j721e"),
    ("ti,j722s-evm ti,j722s", "Texas Instruments J722S EVM", "ti-j721e"),
    ("mediatek,mt8365-evk mediatek,mt8365", "MediaTek MT8365 Open Platform EVK", "mediatek-genio-350"),
    ("mediatek,mt8370-evk mediatek,mt8370 mediatek,mt8188", "MediaTek Genio-510 EVK", "mediatek-genio-510"),
    ("mediatek,mt8390-evk mediatek,mt8390 mediatek,mt8188", "MediaTek Genio-700 EVK", "mediatek-genio-700"),
    (
        "mediatek,mt8395-evk mediatek,mt8395 mediatek,mt8195",
        "MediaTek Genio 1200 EVK-P1V2-EMMC",
        "mediatek-genio-1200",
    ),
    ("radxa,nio-12l mediatek,mt8395 mediatek,mt8195", "Radxa NIO 12L", "mediatek-genio-1200"),
    ("st,stm32mp257f-ev1 st,stm32mp257", "STMicroelectronics STM32MP257F-EV1 Evaluation Board", "stm32mp25"),
    ("st,stm32mp257f-dk st,stm32mp257", "STMicroelectronics STM32MP257F-DK Discovery Board", "stm32mp25"),
    ("st,stm32mp235f-dk st,stm32mp235", "STMicroelectronics STM32MP235F-DK Discovery Board", "stm32mp25"),
    (
        "renesas,smarc-evk renesas,r9a07g054l2 renesas,r9a07g054",
        "Renesas SMARC EVK based on r9a07g054l2",
        "renesas-rz-v2l",
    ),
    (
        "renesas,rzv2h-evk renesas,r9a09g057h44 renesas,r9a09g057",
        "Renesas RZ/V2H EVK Board based on r9a09g057h44",
        "renesas-rz-v2h",
    ),
    (
        "xlnx,zynqmp-sk-kv260-rev2 xlnx,zynqmp-sk-kv260-rev1 xlnx,zynqmp-sk-kv260-revB "
        "xlnx,zynqmp-sk-kv260 xlnx,zynqmp",
        "ZynqMP KV260 revB",
        "amd-kria",
    ),
    ("xlnx,zynqmp-sk-kr260-revB xlnx,zynqmp-sk-kr260 xlnx,zynqmp", "ZynqMP KR260 revB", "amd-kria"),
    (
        "xlnx,zynqmp-sk-kd240-rev1 xlnx,zynqmp-sk-kd240-revB xlnx,zynqmp-sk-kd240-revA "
        "xlnx,zynqmp-sk-kd240 xlnx,zynqmp",
        "ZynqMP KD240 revA/B/1",
        "amd-kria",
    ),
]


def ids(profile):
    return profile.name


def hosts_of(match):
    """Machines made of what a match asks for: each string it names, with nothing else known."""
    alternatives = match.any_of or (match,)
    for one in alternatives:
        facts = {
            "arch": one.arch or None,
            "os_id": (one.os,) if one.os else (),
            "features": one.features or None,
            "usb": one.usb[:1],
            "pci": one.pci[:1],
            "vendor": one.dmi_vendor or None,
            "product": one.dmi_product or None,
            "model": None,
            "compatible": (),
        }
        several = [("compatible", (word,)) for word in one.compatible]
        several += [("model", f"{prefix} Rev 1.1") for prefix in one.model_prefix]
        several += [(bus, (word,)) for bus in ("usb", "pci") for word in getattr(one, bus)]
        for name, value in several or [("arch", facts["arch"])]:
            yield host(**{**facts, name: value})


def host(**facts):
    """A machine of which only ``facts`` are known."""
    return SimpleNamespace(
        arch=facts.get("arch"),
        os_id=facts.get("os_id", ()),
        board=SimpleNamespace(model=facts.get("model"), compatible=facts.get("compatible", ())),
        dmi=SimpleNamespace(vendor=facts.get("vendor"), product=facts.get("product")),
        cpu=SimpleNamespace(features=facts.get("features")),
        usb=tuple(SimpleNamespace(id=device) for device in facts.get("usb", ())),
        pci=tuple(SimpleNamespace(id=device) for device in facts.get("pci", ())),
    )


def tied(match):
    return match is not None and any("tie" in reason for reason in match.reasons)


def test_all_load():
    assert ERRORS == ()
    assert len(PROFILES) == len(FILES)


@pytest.mark.parametrize("profile", FOR_MACHINES, ids=ids)
def test_each_is_in_force_wherever_one_of_its_strings_is(profile):
    machines = list(hosts_of(profile.match))
    assert machines
    for machine in machines:
        match = match_profile(machine, PROFILES)
        assert match is not None and match.profile.name == profile.name, (machine, match)
        assert not tied(match), match.reasons


@pytest.mark.parametrize(("compatible", "model", "name"), BOARDS, ids=[board[1] for board in BOARDS])
def test_a_board_is_known_by_its_device_tree_and_by_its_model_alone(compatible, model, name):
    generic = {"arch": "aarch64", "os_id": ("linux",), "features": ("asimddp",), "usb": ("1a6e:089a",)}
    match = match_profile(host(compatible=tuple(compatible.split()), **generic), PROFILES)
    assert match is not None and match.profile.name == name and not tied(match)
    match = match_profile(host(model=f"{model} Rev 1.0", **generic), PROFILES)
    assert match is not None and not tied(match)
    assert match.profile.name == ("coral-usb" if name in NO_MODEL else name)


def test_the_boards_are_of_as_many_profiles_as_are_promised():
    assert len(PROFILES) >= 45
    assert {name for _, _, name in BOARDS} <= {profile.name for profile in PROFILES}


@pytest.mark.parametrize("profile", PROFILES, ids=ids)
def test_every_fact_says_how_it_is_known_and_where_it_can_be_looked_up(profile):
    facts = [*profile.quirks, *(fact for grounds in profile.sources.values() for fact in grounds)]
    grounds = [(one.provenance, one.source) for one in (*facts, *profile.accelerators)]
    described = [*profile.external.values(), *(pair for known in profile.versions.values() for pair in known)]
    grounds += [(one["provenance"], one["source"]) for one in described]
    assert grounds
    for provenance, source in grounds:
        assert provenance in PROVENANCE
        assert all(len(one) > 5 for one in source)


@pytest.mark.parametrize("profile", PROFILES, ids=ids)
def test_each_names_only_delegates_that_there_are(profile):
    known = {delegate.name for delegate in Manager().delegates} | {BuiltinKernels.name} | COMING
    known |= {name for one in PROFILES for name in one.external}
    assert unknown_delegates(profile, known) == []


def test_the_file_is_found_by_the_name_of_the_board_and_says_what_it_is():
    for profile in FOR_MACHINES:
        assert profile.delegates, f"{profile.name} orders nothing"
        assert len(profile.title) < 100
        assert re.fullmatch(r"[a-z0-9-]+", profile.name)


@pytest.mark.parametrize("tree", HOSTS, ids=lambda tree: tree.name)
def test_the_synthetic_trees_have_one_best_profile_at_most(tree):
    assert not tied(match_profile(probe_host(tree), PROFILES))


@pytest.mark.parametrize("name", MACHINES)
def test_captured_machines_are_taken_for_what_they_are(name):
    if not (CAPTURES / name).is_dir():
        pytest.skip(f"no capture {name} at {CAPTURES.parent.name}/{CAPTURES.name} beside the checkout")
    match = match_profile(probe_host(CAPTURES / name / "root"), PROFILES)
    assert (match and match.profile.name) == MACHINES[name]
    assert not tied(match)


def test_no_captured_machine_is_forgotten():
    if not CAPTURES.is_dir():
        pytest.skip(f"no captures at {CAPTURES.parent.name}/{CAPTURES.name} beside the checkout")
    assert {path.name for path in CAPTURES.iterdir() if path.is_dir()} == set(MACHINES)


# --- the JSON Schema -----------------------------------------------------------------------------------


def test_the_json_schema_is_what_the_checks_say():
    written = json.loads((FOLDER / "schema.json").read_text("utf-8"))
    assert written == json_schema(), "write it anew: tflite-hal profiles schema > device_profiles/schema.json"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_file_is_valid_by_the_json_schema(file):
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(json_schema())
    validator.check_schema(json_schema())
    assert [error.message for error in validator.iter_errors(yaml.safe_load(file.read_text("utf-8")))] == []


# --- what a machine has besides its CPU ----------------------------------------------------------------


def test_add_ons_are_told_wherever_they_are_plugged_in_and_others_are_not():
    pi = host(compatible=("raspberrypi,5-model-b",), pci=("1e60:2864",))
    (hailo,) = accelerators(pi, PROFILES)
    assert (hailo.kind, hailo.delegates) == ("npu", ())
    assert "HailoRT" in hailo.instead
    assert accelerators(pi, []) == []
    pc = host(arch="x86_64", os_id=("linux",), features=("avx2",), pci=("8086:643e", "1ac1:089a"))
    assert {one.name: one.delegates for one in accelerators(pc, PROFILES)} == {
        "Coral Edge TPU on PCIe": ("edgetpu",),
        "Intel NPU": ("openvino",),
    }


def test_what_goes_wrong_anywhere_is_told_beside_what_goes_wrong_here():
    texts = [fact.text for fact in quirks(host(compatible=("raspberrypi,5-model-b",)), PROFILES)]
    assert any("16 KiB pages" in text for text in texts)
    assert any("NumPy 2" in text for text in texts)
    anywhere = [fact.text for fact in quirks(host(), PROFILES)]
    assert anywhere and set(anywhere) < set(texts)


def test_what_the_board_has_comes_from_the_profile_in_force_only():
    nano = host(compatible=("nvidia,p3450-0000", "nvidia,tegra210"), usb=("1a6e:089a",))
    assert [one.name for one in accelerators(nano, PROFILES)] == ["Maxwell GPU", "Coral USB Accelerator"]
