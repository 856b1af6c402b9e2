"""A profile on request: which steps, what is asked of workers, the traces, the page; and nothing of it by default."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from trainer.learner.profiling import StepProfiler
from trainer.learner.spans import span
from trainer.learner.trace import read_trace, trace_of
from trainer.settings.profile import ProfileConfig


def event(name: str, ts: float, dur: float, cat: str = "cpu_op", tid: int = 1) -> dict[str, Any]:
    return {"ph": "X", "name": name, "cat": cat, "ts": ts, "dur": dur, "pid": 1, "tid": tid}


def test_an_operators_own_time_is_without_what_it_calls() -> None:
    events = [
        event("linear", 0, 100), event("addmm", 10, 60), event("copy", 20, 30), event("addmm", 80, 10),
        event("addmm", 50, 40, tid=2), event("python", 0, 500, cat="python_function"), {"ph": "M", "name": "meta"},
    ]  # fmt: skip
    trace = trace_of(events)
    found = {operator.name: (operator.calls, round(operator.seconds * 1e6)) for operator in trace.operators}
    assert found == {"addmm": (3, 80), "linear": (1, 30), "copy": (1, 30)}
    assert [operator.name for operator in trace.operators][0] == "addmm"
    assert (trace.on_card, trace.busy, round(trace.seconds * 1e6)) == (False, 0.0, 500)


def test_with_a_card_it_is_its_kernels_that_count_and_overlaps_count_once() -> None:
    events = [
        event("aten::mm", 0, 1000),
        event("gemm", 100, 200, "kernel", 7),
        event("ncclDevKernel_AllGather_RING_LL(x)", 200, 200, "kernel", 8),
        event("ncclDevKernel_ReduceScatter_Sum_f32", 600, 50, "kernel", 8),
        event("Memcpy HtoD", 640, 20, "gpu_memcpy", 7),
    ]
    trace = trace_of(events)
    assert trace.on_card and {o.name for o in trace.operators} == {e["name"] for e in events[1:]}
    assert round(trace.busy * 1e6) == 300 + 60
    assert (round(trace.gather * 1e6), round(trace.reduce * 1e6)) == (200, 50)


def test_no_events_are_no_seconds() -> None:
    assert trace_of([{"ph": "M", "name": "meta"}]).seconds == 0.0


@pytest.fixture
def steps(alone: None, tmp_path: Path):
    """Runs steps under a profiler; what was asked of the workers, with the step at which it was."""

    def run(config: ProfileConfig, count: int, worker_trace: bool = True) -> list[tuple[int, str, Any]]:
        asked: list[tuple[int, str, Any]] = []
        step = 0

        def tell(route: str, body: dict[str, Any] | None) -> None:
            asked.append((step, route, body))
            if route == "stop_profile" and worker_trace:
                folder = tmp_path / "profile" / "worker-0"
                folder.mkdir(parents=True, exist_ok=True)
                raw = json.dumps({"traceEvents": [event("paged_attention", 0, 2e6)]}).encode()
                (folder / "rank0.1.pt.trace.json.gz").write_bytes(gzip.compress(raw))

        profiler = StepProfiler(config, tmp_path / "profile", tell)
        for step in range(count):
            clock = profiler.clock(step, lambda phase: None)
            with clock("generate"):
                time.sleep(0.02)
            with clock("train"):
                with span("forward"):
                    torch.ones(300, 300) @ torch.ones(300, 300)
                with span("backward"):
                    time.sleep(0.01)
            profiler.note("gather", 0.5)
            time.sleep(0.005)
        profiler.finish()
        return asked

    return run


def test_the_steps_asked_for_are_profiled_and_told_on_a_page(steps, tmp_path: Path, capsys) -> None:
    asked = steps(ProfileConfig(steps=2, after=1, engine_steps=7), 5)
    assert asked == [(1, "start_profile", {"max_iterations": 7}), (3, "stop_profile", None)]
    folder = tmp_path / "profile"
    trace = read_trace(folder / "learner-0.trace.json.gz")
    assert {"aten::mm", "aten::matmul"} & {operator.name for operator in trace.operators}
    raw = json.loads(gzip.decompress((folder / "learner-0.trace.json.gz").read_bytes()))
    named = [e["name"] for e in raw["traceEvents"] if str(e.get("name", "")).startswith("timepro: ")]
    assert sorted(set(named)) == [f"timepro: {name}" for name in ("backward", "forward", "generate", "train")]
    page = (folder / "summary.md").read_text()
    assert page.startswith("# Where the time of steps 2 to 3 went")
    rows = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:5]] for line in page.splitlines()
            if line.startswith("| ") and line.count("|") == 5}  # fmt: skip
    generate, whole = rows["generate"], rows["**a step**"]
    assert 0.02 <= float(generate[0]) < 0.2 and 0.02 <= float(generate[2]) < 0.2
    assert float(whole[0]) >= float(generate[0]) + float(rows["train"][0]) and whole[1] == "100%"
    assert float(rows["&nbsp;&nbsp;backward"][0]) >= 0.01
    assert float(rows["between phases: log, validation, checkpoints"][0]) >= 0.004
    assert "## Top operators, learner rank 0" in page
    assert "## Top operators, worker 0 (2.00 s traced)" in page and "| `paged_attention` | 1 | 2.000 | 100% |" in page
    assert "- idle: " in page and "its process used no CPU" in page
    said = capsys.readouterr().err
    assert "profiling 2 step(s) from step 2 on" in said and f"went: {folder / 'summary.md'}" in said


def test_a_run_that_ends_within_its_profile_writes_it(steps, tmp_path: Path) -> None:
    assert [route for _, route, _ in steps(ProfileConfig(steps=9, after=0), 2)] == ["start_profile", "stop_profile"]
    assert "# Where the time of steps 1 to 2 went" in (tmp_path / "profile" / "summary.md").read_text()


def test_workers_that_cannot_be_asked_cost_the_profile_nothing_else(alone, tmp_path: Path, capsys) -> None:
    def tell(route: str, body: Any) -> None:
        raise RuntimeError("http://x/start_profile: no connection; has the worker ended?")

    profiler = StepProfiler(ProfileConfig(steps=1, after=0), tmp_path, tell)
    with profiler.clock(0, lambda phase: None)("generate"):
        torch.ones(2) + 1
    profiler.finish()
    assert "## Top operators, learner rank 0" in (tmp_path / "summary.md").read_text()
    assert "the profile lacks workers: http://x/start_profile" in capsys.readouterr().err


def test_by_default_nothing_is_profiled(steps, tmp_path: Path) -> None:
    assert steps(ProfileConfig(), 6) == []
    assert not (tmp_path / "profile").exists() and span.listener is None


def test_a_span_that_nobody_listens_to_costs_nothing_to_speak_of() -> None:
    begun = time.perf_counter()
    for _ in range(10_000):
        with span("forward"):
            pass
    assert time.perf_counter() - begun < 1.0  # 100 microseconds each, on the busiest of machines
