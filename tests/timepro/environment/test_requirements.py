"""What an installed distribution asks for, read from its metadata."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from timepro.environment.requirements import main, requirements_of


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "some_engine-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: some-engine\nVersion: 1.0\n"
        "Requires-Dist: torch==2.13.0+cpu\nRequires-Dist: Torch_Audio; python_version >= '3'\n"
        "Requires-Dist: fastapi[standard]>=0.1\nRequires-Dist: old; python_version < '3'\n"
        "Requires-Dist: pytest; extra == 'test'\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_what_applies_here_and_is_not_left_out(installed: Path) -> None:
    assert requirements_of("some-engine", ["torch", "torch-audio"]) == ["fastapi[standard]>=0.1"]
    assert len(requirements_of("some-engine", [])) == 3


def test_what_is_not_installed_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["no-such-engine"]) == 1
    assert "no-such-engine is not installed in" in capsys.readouterr().err


def test_lines_are_for_pip() -> None:
    command = [sys.executable, "-m", "timepro.environment.requirements", "pytest"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert any(line.startswith("pluggy") for line in lines)
