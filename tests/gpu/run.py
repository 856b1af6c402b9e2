"""`make test-gpu`: everything that needs a card, part by part, into `gpu-report.json`.

    python tests/gpu/run.py [--parts learner,attention] [--out gpu-report.json]

Each part is a process of its own with a deadline, so that one that fails, hangs or breaks the card's context takes
no other with it, and the report is written anew after each. Parts that need vLLM say so where its CUDA build is
missing; `environment`, `attention`, `fused`, `logprobs`, `learner` and `stream` need only torch, transformers, PEFT and
DeepSpeed. Without a card all are skipped, with the reason. The exit code is 1 where a part failed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[2]
TESTS = Path(__file__).resolve().parent
FIGURES = "TIMEPRO_GPU_FIGURES"  # as in conftest.py
PACKAGES = ("torch", "triton", "transformers", "peft", "deepspeed", "vllm", "numpy")


@dataclass(frozen=True)
class Part:
    """One part: the test files of its own process, or a program, and its deadline in seconds."""

    command: list[str]
    timeout_s: float
    tests: bool = True


def tests(name: str, timeout_s: float) -> Part:
    return Part([sys.executable, "-m", "pytest", "-m", "gpu", "-q", str(TESTS / f"test_{name}.py")], timeout_s)


def benchmark(timeout_s: float) -> Part:
    script = ROOT / "experiments" / "benchmarks" / "learner.py"
    command = [sys.executable, str(script), "--device", "cuda", "--architecture", "7b", "--repeats", "3"]
    return Part(command, timeout_s, tests=False)


PARTS: dict[str, Part] = {
    "attention": tests("attention", 200),
    "fused": tests("fused", 60),
    "logprobs": tests("logprobs", 60),
    "learner": tests("learner", 240),
    "stream": tests("stream", 120),
    "worker": tests("worker", 300),
    "job": tests("job", 300),
    "benchmark": benchmark(330),
}


def main() -> int:
    """Run the parts, say how each ended; 1 where one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(["environment", *PARTS]), help="comma-separated; default: all")
    parser.add_argument("--out", type=Path, default=Path("gpu-report.json"))
    options = parser.parse_args()
    chosen = options.parts.split(",")
    if unknown := [name for name in chosen if name not in ("environment", *PARTS)]:
        parser.error(f"no part is called {', '.join(unknown)}; there are environment, {', '.join(PARTS)}")
    report: dict[str, Any] = {"date": date.today().isoformat(), "environment": environment(), "parts": {}}
    for name in chosen:
        if name in PARTS:
            report["parts"][name] = run_part(name, PARTS[name], report["environment"]["card"])
        report["paragraph"] = paragraph(report)
        options.out.write_text(json.dumps(report, indent=1), encoding="utf-8")
    print(f"\n{report['paragraph']}\n\n{options.out}")
    return int(any(part["outcome"] == "failed" for part in report["parts"].values()))


def environment() -> dict[str, Any]:
    """The machine and what is installed, asked in a process of its own: this one must not open the card."""
    found: dict[str, Any] = {"python": platform.python_version(), "cores": os.cpu_count(), "card": None}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    ask = "import torch, json; p = torch.cuda.get_device_properties(0); " + (
        "print(json.dumps([p.name, round(p.total_memory / 2**30, 1), torch.version.cuda, torch.cuda.device_count()]))"
    )
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, timeout=120, check=False)
    if done.returncode == 0:
        keys = ("card", "gib", "cuda", "cards")
        found |= dict(zip(keys, json.loads(done.stdout.splitlines()[-1]), strict=True))
    return found


def run_part(name: str, part: Part, card: str | None) -> dict[str, Any]:
    """How a part ended: outcome, seconds, figures, and why it failed or what was skipped."""
    if not part.tests and card is None:
        return said(name, {"outcome": "skipped", "why": ["no card can be used"], "seconds": 0.0, "figures": {}})
    with tempfile.TemporaryDirectory() as folder:
        junit, figures = Path(folder) / "junit.xml", Path(folder) / "figures.json"
        command = part.command + ([f"--junitxml={junit}"] if part.tests else [])
        begun = time.monotonic()
        code, output = run(command, os.environ | {FIGURES: str(figures)}, part.timeout_s)
        found = json.loads(figures.read_text(encoding="utf-8")) if figures.is_file() else {}
        if not part.tests:
            lines = [line for line in output.splitlines() if line.startswith("{")]
            found = json.loads(lines[-1]) if lines else {}
        result = {"seconds": round(time.monotonic() - begun, 1), "figures": found}
        result |= of_tests(junit, code) if part.tests else of_program(found, code)
    if result["outcome"] == "failed":
        result["output"] = output[-6000:]
    return said(name, result)


def run(command: list[str], environment: dict[str, str], timeout_s: float) -> tuple[int | None, str]:
    """Exit code, None where the deadline passed, and what was written; shown as it comes."""
    with tempfile.TemporaryFile("w+", errors="replace") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        code: int | None
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)  # with what it started
            process.wait()
            code = None
        log.seek(0)
        return code, log.read()


def of_tests(junit: Path, code: int | None) -> dict[str, Any]:
    """Outcome of a part of tests."""
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    why: list[str] = []
    for case in ElementTree.parse(junit).iter("testcase") if junit.is_file() else ():
        wrong = [child for child in case if child.tag in ("failure", "error")]
        skipped = case.find("skipped")
        counts["failed" if wrong else "skipped" if skipped is not None else "passed"] += 1
        why += [f"{case.get('name')}: {child.get('message', '')[:500]}" for child in wrong]
        if skipped is not None and (reason := skipped.get("message", "")) not in why:
            why.append(reason)
    if code is None:
        why.append("the deadline passed")
    failed = counts["failed"] or code not in (0, 5)
    outcome = "failed" if failed else "passed" if counts["passed"] else "skipped"
    return {"outcome": outcome, "why": why, **counts}


def of_program(result: dict[str, Any], code: int | None) -> dict[str, Any]:
    """Outcome of a benchmark: it passed where it has ended with figures; whether a target is met is another matter."""
    why = [] if code is not None else ["the deadline passed"]
    return {"outcome": "passed" if result and code in (0, 1) else "failed", "why": why, "holds": result.get("holds")}


def said(name: str, result: dict[str, Any]) -> dict[str, Any]:
    print(f"{name}: {result['outcome']} ({result['seconds']} s)", *result["why"], sep="\n  ", flush=True)
    return result


def paragraph(report: dict[str, Any]) -> str:
    """What a README can say of the run."""
    where, parts = report["environment"], report["parts"]
    if where["card"] is None:
        return "`make test-gpu` found no card here: nothing was run."
    text = (
        f"`make test-gpu` on one {where['card']} ({where['gib']} GiB), {report['date']}, torch {where['torch']}, "
        f"transformers {where['transformers']}, DeepSpeed {where['deepspeed']}: "
    )
    text += "; ".join(
        f"{outcome} {', '.join(names)}"
        for outcome in ("passed", "failed", "skipped")
        if (names := [name for name, part in parts.items() if part["outcome"] == outcome])
    )
    return text + "." + " ".join(f" {sentence}" for sentence in _sentences(parts))


def _sentences(parts: dict[str, Any]) -> list[str]:
    found: list[str] = []
    describe: dict[str, Callable[[dict[str, Any]], str]] = {"attention": _of_attention, "benchmark": _of_benchmark}
    for name, words in describe.items():
        try:
            found.append(words(parts[name]["figures"]))
        except (KeyError, ValueError, TypeError):
            continue  # the part was not run, or ended before it had figures
    return found


def _of_attention(figures: dict[str, Any]) -> str:
    found = figures["benchmark"]
    return (
        f"Tree attention at 10,000 tokens: {found['speedup']:.1f} times as fast as the dense path in "
        f"{found['memory_ratio']:.2f} of its memory."
    )


def _of_benchmark(result: dict[str, Any]) -> str:
    best = max((run for run in result["figures"]["runs"] if "mfu" in run), key=lambda run: run["mfu"])
    return (
        f"The learner at 7B: up to {best['tokens_per_second']:,.0f} tokens a second, MFU {best['mfu']:.0%} "
        f"({best['mode']}, {best['shape']}), peak {best['peak_gib']:.1f} GiB."
    )


if __name__ == "__main__":
    sys.exit(main())
