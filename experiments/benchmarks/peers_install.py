"""Environments of the peers' own, so that their requirements and ours do not meet."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from timepro.environment.cpu_wheels import repair

# Same torch and transformers as ours: what is compared is the systems.
SHARED = ("torch", "transformers")
PACKAGES = {
    "swift": ("ms-swift==4.6.0", "qwen-omni-utils", "librosa", "decord", "msgspec", "soundfile", "torchvision"),
    "trl": ("trl==1.16.0", "librosa", "soundfile", "torchvision"),
}
NAMES = {"swift": "ms-swift", "trl": "trl"}
IMPORTS = {"swift": "from swift import rlhf_main", "trl": "from trl import GRPOConfig, GRPOTrainer"}
_LIMIT_S = 1800.0


class NotInstalled(RuntimeError):
    """A peer's environment could not be made; says why."""


def wanted(peer: str) -> list[str]:
    """Requirements of a peer's environment; torch and what belongs to it by our own versions."""
    ours = [f"{name}=={version(name).split('+')[0]}" for name in (*SHARED, "torchvision")]
    return [*ours, *(package for package in PACKAGES[peer] if package != "torchvision")]


def install(peer: str, folder: Path) -> Path:
    """Make a peer's environment, or find it made.

    Args:
        folder: of all environments; the peer's is called like it.

    Returns:
        its Python.

    Raises:
        NotInstalled: pip failed.
    """
    place, requirements = folder / peer, wanted(peer)
    python, stamp = place / "bin" / "python", place / "installed.txt"
    asked = "\n".join(requirements)
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == asked:
        say(f"{peer}: {place} is up to date")
        return python
    say(f"{peer}: installing {', '.join(requirements)} into {place}")
    run([sys.executable, "-m", "venv", str(place)])
    torch, *others = requirements
    # torch alone first: resolved with the rest, pip may take a CUDA build of gigabytes where it knows a CPU build.
    for part in ([torch], [torch, *others]):
        run([str(python), "-m", "pip", "install", "--quiet", "--no-compile", *part])
    site = next((place / "lib").glob("python*/site-packages"))
    for name, said in repair(site).items():
        say(f"{peer}: {name}: {said}")
    run([str(python), "-c", IMPORTS[peer]])  # compiled here, and not in the first run that is measured
    stamp.write_text(asked, encoding="utf-8")
    say(f"{peer}: installed")
    return python


def run(command: list[str]) -> None:
    """Run a step of an installation.

    Raises:
        NotInstalled: it failed; with what it said last.
    """
    shown = " ".join(command)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S)
    except subprocess.TimeoutExpired:
        raise NotInstalled(f"{shown}: not done within {_LIMIT_S:g} s") from None
    if done.returncode:
        raise NotInstalled(f"{shown}: {done.stderr.strip()[-500:]}")


def installed_version(python: Path, peer: str) -> str:
    """Which version of a peer its environment holds."""
    code = f"from importlib.metadata import version; print(version('{NAMES[peer]}'))"
    return subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def say(text: str) -> None:
    """To the person who waits."""
    print(text, file=sys.stderr, flush=True)
