"""Processes of a run killed and stopped in every phase: what survives goes on, what cannot ends cleanly and resumes.

`make test-faults` runs it, two runs side by side. Whatever happens on the way, the answers of every step and the final
weights are those of a run that nothing happened to.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

import miniature

pytestmark = [pytest.mark.faults, pytest.mark.e2e, pytest.mark.slow]

HERE = Path(__file__).resolve().parent
SILENCE_S = 15  # the default of rollout.silence_timeout_s and learner.silence_timeout_s
PHASES = ("generate", "score", "train", "sync", "save")
WORKER_FAULTS = [
    (who, number, phase)
    for phase in ("generate", "train", "sync")
    for who in ("engine", "server")
    for number in (signal.SIGKILL, signal.SIGSTOP)
]
RANK_FAULTS = [(number, phase) for phase in PHASES for number in (signal.SIGKILL, signal.SIGSTOP)]
STEPS = max(len(WORKER_FAULTS), len(RANK_FAULTS)) + 3
SETTINGS = [
    "data.sft_clips=48",
    "data.rl_clips=24",
    "data.test_clips=8",
    "sft.max_steps=12",
    "sft.encoder_warmup.steps=4",
    f"grpo.max_steps={STEPS}",
    "grpo.groups.prompts_per_step=4",
    "grpo.optimiser.learning_rate=1e-3",
    "grpo.groups.temperature=0.7",
    "grpo.checkpoints.save_every=1",
    "grpo.mask_truncated=false",
    "grpo.objective.old_policy=learner",  # bit-equal weights, however vLLM batched the requests
    "rewards=easy_rewards:share_of_times",
    f"rollout.max_restarts={len(WORKER_FAULTS)}",
]


class Run:
    """A run's launcher, started in a folder that several runs share."""

    def __init__(self, runs: Path, name: str, *more: str) -> None:
        self.folder, self.marks, self._log = runs / name, runs / f"{name}.marks", runs / f"{name}.log"
        self.marks.mkdir(exist_ok=True)
        self._begins = self._log.stat().st_size if self._log.is_file() else 0
        environment = miniature.environment([HERE], {"TIMEPRO_TEST_MARKS": str(self.marks)})
        command = miniature.command(*SETTINGS, f"runs={runs}", f"name={name}", *more)
        with self._log.open("ab") as sink:
            self.launcher = subprocess.Popen(
                command, cwd=miniature.ROOT, env=environment, stdout=sink, stderr=subprocess.STDOUT
            )

    def said(self) -> str:
        """What this launcher and its ranks have said."""
        return self._log.read_text(errors="replace")[self._begins :]

    def until(self, reached: Callable[[], bool], limit_s: float, what: str) -> float:
        """Wait, while the run goes on; returns the seconds."""
        began = time.monotonic()
        while not reached():
            if self.launcher.poll() is not None or time.monotonic() - began > limit_s:
                self.launcher.kill()
                pytest.fail(f"{what}: not within {limit_s} s, or the run ended before:\n{self.said()[-4000:]}")
            time.sleep(0.02)
        return time.monotonic() - began

    def ends(self, limit_s: float) -> int:
        """Its exit code."""
        try:
            return self.launcher.wait(limit_s)
        except subprocess.TimeoutExpired:
            self.launcher.kill()
            pytest.fail(f"still running after {limit_s} s:\n{self.said()[-4000:]}")

    def linger(self, phase: str, step: int) -> None:
        """Make the ranks stay in a phase long enough to be met there."""
        (self.marks / f"linger.{phase}.{step}").touch()

    def in_phase(self, phase: str, step: int, rank: int) -> bool:
        return (self.marks / f"{phase}.{step}.{rank}").is_file()

    def steps_done(self) -> int:
        metrics = self.folder / "metrics.grpo.jsonl"
        return len(metrics.read_text().splitlines()) if metrics.is_file() else 0

    def servers(self) -> list[psutil.Process]:
        return [p for p in psutil.Process(self.launcher.pid).children() if "rollout.serve" in p.cmdline()]

    def server(self) -> psutil.Process:
        (found,) = self.servers()
        return found

    def engine(self) -> psutil.Process:
        (found,) = [p for p in self.server().children(recursive=True) if "EngineCore" in " ".join(p.cmdline())]
        return found

    def rank(self, number: int) -> psutil.Process:
        ranks = [p for p in psutil.Process(self.launcher.pid).children() if "trainer.learner.rank" in p.cmdline()]
        (found,) = [p for p in ranks if p.environ()["RANK"] == str(number)]
        return found


def left_over(runs: Path) -> list[str]:
    """Command lines of processes that the runs of a folder have started, told by their environment."""
    found = []
    for process in psutil.process_iter(["environ", "cmdline", "status"]):
        marks = (process.info["environ"] or {}).get("TIMEPRO_TEST_MARKS", "")
        if marks.startswith(str(runs)) and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(" ".join(process.info["cmdline"] or [])[:200])
    return found


def nothing_is_left(runs: Path, limit_s: float = 10.0) -> None:
    deadline = time.monotonic() + limit_s
    while found := left_over(runs):
        assert time.monotonic() < deadline, found
        time.sleep(0.2)


def answers_of(run: Path, step: int) -> dict[str, list[str]]:
    """A step's answers by sample; every group is there once."""
    groups = [
        json.loads(line)
        for path in sorted((run / "rollouts").glob(f"step-{step:06d}.rank*.jsonl"))
        for line in path.read_text().splitlines()
    ]
    assert len(groups) == len({group["id"] for group in groups}) == 4
    assert {a["weight_version"] for g in groups for a in g["answers"]} == {step - 1}
    return {group["id"]: [answer["text"] for answer in group["answers"]] for group in groups}


def same_as(whole: Path, other: Path) -> None:
    for step in range(1, STEPS + 1):
        assert answers_of(other, step) == answers_of(whole, step), f"step {step}"
    steps = [json.loads(line)["step"] for line in (other / "metrics.grpo.jsonl").read_text().splitlines()]
    assert steps == list(range(1, STEPS + 1))
    expected, found = (load_file(run / "checkpoint" / "model.safetensors") for run in (whole, other))
    apart = {name: float((expected[name] - found[name]).abs().max()) for name in expected}
    assert all(torch.equal(expected[name], found[name]) for name in expected), max(apart.items(), key=lambda x: x[1])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("runs")
    yield folder
    nothing_is_left(folder)


@pytest.fixture(scope="module")
def whole(runs: Path) -> Path:
    """The run that nothing happens to."""
    run = Run(runs, "whole")
    assert run.ends(900) == 0, run.said()[-4000:]
    return run.folder


def test_a_run_survives_whatever_happens_to_its_worker(whole: Path, runs: Path) -> None:
    run = Run(runs, "worker")
    for number, (_, _, phase) in enumerate(WORKER_FAULTS):
        run.linger(phase, number + 1)
    for number, (who, signal_number, phase) in enumerate(WORKER_FAULTS):
        what = f"{who}, {signal_number.name} in {phase} of step {number + 1}"
        run.until(lambda n=number, p=phase: run.in_phase(p, n + 1, 0), 300, what)
        time.sleep(0.3)  # into the phase
        process = run.engine() if who == "engine" else run.server()
        process.send_signal(signal_number)
        told = run.until(lambda n=number: run.said().count("starting it again") > n, SILENCE_S + 15, f"{what}: noticed")
        back = run.until(lambda n=number: run.steps_done() > n + 1, 240, f"{what}: the step done")
        print(f"{what}: noticed after {told:.1f} s, the step was done {back:.1f} s later", flush=True)
        # A question every 3 s; a sync's own signs of life go on for the 2 s that it lingers.
        assert told < (SILENCE_S + 8 if signal_number == signal.SIGSTOP else 10), what
    assert run.ends(300) == 0, run.said()[-4000:]
    said = re.findall(r"rollout worker 0 (.*?); starting it again", run.said())
    assert len(said) == len(WORKER_FAULTS)
    assert all(words.startswith(("ended (exit code", "has not answered for")) for words in said), said
    nothing_is_left(runs)
    same_as(whole, run.folder)


def test_a_run_goes_on_without_a_worker_that_stays_broken(whole: Path, runs: Path) -> None:
    run = Run(runs, "dropped", "rollout.workers=2", "rollout.max_restarts=0")
    run.until(lambda: run.steps_done() >= 2, 400, "two steps")
    run.servers()[0].kill()
    assert run.ends(600) == 0, run.said()[-4000:]
    assert run.said().count("it is given up. Its log: ") == 1
    assert "does not answer; going on without it (1 of 2 rollout workers)" in run.said()
    workers = [
        json.loads(line)["sync/workers"] for line in (run.folder / "metrics.grpo.jsonl").read_text().splitlines()
    ]
    assert workers[0] == 2.0 and workers[-1] == 1.0
    nothing_is_left(runs)
    same_as(whole, run.folder)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_run_ends_cleanly_with_a_learner_rank_and_resumes(whole: Path, runs: Path, rank: int) -> None:
    run, name = None, f"rank-{rank}"
    for number, (signal_number, phase) in enumerate(RANK_FAULTS):
        step = number + 1  # counts what is done before; a phase's own count begins anew with each process
        what = f"rank {rank}, {signal_number.name} in {phase} near step {step}"
        run = Run(runs, name, *(["--resume"] if number else []))
        done = run.steps_done()
        counted = {"generate": done, "score": 0, "train": 0, "sync": done + 1, "save": done + 1}[phase]
        for path in run.marks.iterdir():
            path.unlink()
        run.linger(phase, counted)
        watched = 0 if phase in ("sync", "save") else rank  # rank 0 alone sends and concludes a checkpoint
        run.until(lambda r=run, p=phase, c=counted, w=watched: r.in_phase(p, c, w), 300, what)
        time.sleep(0.3)
        run.rank(rank).send_signal(signal_number)
        began = time.monotonic()
        assert run.ends(SILENCE_S + 45) == 1, what
        spent = time.monotonic() - began
        print(f"{what}: ended after {spent:.1f} s, {run.steps_done()} steps done", flush=True)
        words = "ended with exit code -9" if signal_number == signal.SIGKILL else "has been stopped for"
        assert f"learner rank {rank} {words}" in run.said(), run.said()[-3000:]
        nothing_is_left(runs)
        if phase == "save":
            assert run.steps_done() > done
    last = Run(runs, name, "--resume")
    assert last.ends(600) == 0, last.said()[-4000:]
    same_as(whole, last.folder)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_run_without_its_launcher(whole: Path, runs: Path, number: signal.Signals) -> None:
    """Killed: all it started ends by itself, and resumes. Stopped: the run goes on without it."""
    name = f"launcher-{number.name}"
    run = Run(runs, name)
    run.until(lambda: run.steps_done() >= 2, 300, "two steps")
    run.launcher.send_signal(number)
    if number == signal.SIGKILL:
        run.launcher.wait(10)
        nothing_is_left(runs, limit_s=20)
        run = Run(runs, name, "--resume")
    else:
        done = run.steps_done()
        run.until(lambda: run.steps_done() >= done + 2, 60, "two more steps without the launcher")
        run.launcher.send_signal(signal.SIGCONT)
    assert run.ends(600) == 0, run.said()[-4000:]
    nothing_is_left(runs)
    same_as(whole, run.folder)
