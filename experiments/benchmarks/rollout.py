"""Groups a second through the pool, beside the same prompts given straight to `LLM.generate`; and where the time goes.

    python experiments/benchmarks/rollout.py [--parts base-1,base-2,50m-1,50m-2,reply,sampler] [--threads 1]

A part is a model and a number of workers: `base` is the shipped small base with timestamps, `50m` has 50 million random
parameters. Steps of 24 prompts x 8 answers of at most 20 tokens, as in the embedded experiments. The pool and
`LLM.generate` (one a worker, each with its share of a step's prompts) have the same arguments, threads, cores and
files, and take turns, so that other work on the machine slows both. Keys and values are forgotten before every epoch,
as by a sync.

- `groups_s`: `cold` are clips that nobody has seen, `warm` the same ones again, `unseeded` again without seeds;
- `of_straight`: the pool's over `LLM.generate`'s; `same`: the share of answers that are equal token for token;
- `unseeded_gain`: what doing without seeds gains in the pool (`rollout.seeded=false`);
- `ms_a_group` (one worker), from an engine in one process: `processor` (audio and prompt), `requests`, `scheduler`,
  `model`, `sampler`, `outputs`, `rest`, and `steps`, the engine's steps in a step; `http`: what the pool takes longer
  than `LLM.generate`, so all of client, HTTP and server;
- `cpu_ms_a_group`: CPU time by process: the pool's `client`, a worker's `server` and `engine`, the `straight` ones.

Parts without an engine, in milliseconds of CPU time (`rollout_pieces.py`): `reply`, a group's way from vLLM's output to
the learner by vLLM's token route (`token_route_ms`) and by the worker's own (`ms`); `sampler`, vLLM's draw on a CPU for
a step's answers, with a generator a row, as seeds want it, and without. A GPU's draw starts a kernel a row for seeds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
# Last, since this file is called like the package `rollout`.
sys.path[:] = [str(ROOT), *(p for p in sys.path if Path(p or ".").resolve() != HERE), str(HERE)]

import psutil  # noqa: E402
from rollout_pieces import reply_ms, sampler_ms  # noqa: E402

from rollout.client import Prompt, RolloutPool, Sampling  # noqa: E402
from rollout.control import WorkerControl  # noqa: E402
from rollout.settings import WorkerConfig  # noqa: E402
from rollout.worker import engine_arguments, worker_environment  # noqa: E402
from timepro.data.soundscape import SoundscapeConfig  # noqa: E402
from timepro.data.synth import write_split  # noqa: E402
from timepro.feature_cache import CachePlace  # noqa: E402
from timepro.features import Processor  # noqa: E402
from timepro.tasks import find_task  # noqa: E402

TARGETS = {"base": 0.75, "50m": 0.9}  # of_straight, at least, cold and warm
STEPS = {"base": 4, "50m": 1}  # of an epoch
REPEATS = {"base": 3, "50m": 1}  # an epoch takes 3 and 24 s
PROMPTS, ANSWERS, TOKENS = 24, 8, 20
SETTLE_S = 2.5  # a file that changed just now is not yet known by its times
START_S = 600.0
PIECES = {"reply": reply_ms, "sampler": sampler_ms}
PARTS = ("base-1", "base-2", "50m-1", "50m-2", *PIECES)


def main() -> int:
    """Measure, print a JSON line; 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--threads", type=int, default=1, help="of each engine")
    parser.add_argument("--repeats", type=int, help="warm epochs, of which the median counts (base: 3, 50m: 1)")
    options = parser.parse_args()
    parts = options.parts.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"unknown parts {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    figures: dict[str, Any] = {"threads": options.threads}
    for part in parts:
        with tempfile.TemporaryDirectory() as folder:
            figures[part] = PIECES[part]() if part in PIECES else measure(Path(folder), part, options)
        print(part, json.dumps(figures[part]), file=sys.stderr, flush=True)
    targets = {part: TARGETS[part.partition("-")[0]] for part in parts if part not in PIECES}
    holds = all(figures[part]["of_straight"][clips] >= least for part, least in targets.items() for clips in CLIPS)
    print(json.dumps({"benchmark": "rollout", "figures": figures, "targets": targets, "holds": holds}))
    return 0 if holds else 1


CLIPS = ("cold", "warm")


def build(folder: Path, model: str) -> Path:
    """The shipped base with timestamps, or an architecture like it with 50 million random parameters."""
    from timepro.tiny.base import build_on_base
    from timepro.tiny.config import TinyModelConfig

    if model == "base":
        build_on_base(folder, TinyModelConfig(timestamp_init="smooth", astp_every=5))
        return folder
    from timepro.data.sounds import SOUNDS
    from timepro.tasks.samples import tokenizer_texts
    from timepro.tiny.build import build_tiny_checkpoint

    config = TinyModelConfig(hidden_size=512, layers=12, heads=8, key_value_heads=4, astp_every=5)
    config.feed_forward = 4 * config.hidden_size
    build_tiny_checkpoint(folder, config, SOUNDS, tokenizer_texts())
    return folder


@dataclass
class Epoch:
    """One pass over clips: groups a second, the answers' token ids by clip, CPU seconds by process, timers."""

    groups_s: float
    answers: dict[str, list[list[int]]]
    cpu_s: dict[str, float]
    times: dict[str, float]


class Epochs(ABC):
    """Asks for epochs of steps; the kinds of systems say how a step is answered."""

    def __init__(self, folder: Path) -> None:
        processor = Processor(folder)
        self._prompt = processor.prompt_ids(find_task("sed").question(""))
        self.eos = processor.eos_token_id

    def run(self, clips: Sequence[Path], seeded: bool = True) -> Epoch:
        """Answer all clips, a step at a time."""
        self.forget()
        answers: dict[str, list[list[int]]] = {}
        sums: dict[str, float] = {}
        began, used = time.perf_counter(), self.cpu_seconds()
        for start in range(0, len(clips), PROMPTS):
            step = list(clips[start : start + PROMPTS])
            prompts = [(self._prompt, path, number if seeded else None) for number, path in enumerate(step)]
            found, times = self.step(prompts)
            answers |= zip((path.name for path in step), found, strict=True)
            sums = {name: sums.get(name, 0.0) + value for name, value in times.items()}
        seconds = time.perf_counter() - began
        cpu = {name: value - used[name] for name, value in self.cpu_seconds().items()}
        return Epoch(len(clips) / seconds, answers, cpu, sums)

    @abstractmethod
    def forget(self) -> None:
        """Drop keys and values of earlier epochs."""

    @abstractmethod
    def step(self, prompts: list[tuple[list[int], Path, int | None]]) -> tuple[list[list[list[int]]], dict[str, float]]:
        """Token ids of each prompt's answers, and timers."""

    @abstractmethod
    def cpu_seconds(self) -> dict[str, float]:
        """CPU seconds until now, by kind of process."""


class ThroughPool(Epochs):
    """Workers, and the learner's client."""

    def __init__(self, checkpoint: Path, workers: Any) -> None:
        super().__init__(checkpoint)
        self.pool = RolloutPool(workers.urls, workers.token)
        self._control = WorkerControl(workers.urls, workers.token, 60.0)
        self._servers = [psutil.Process(worker.process.pid) for worker in workers.workers]
        self._sampling = Sampling(ANSWERS, 1.0, TOKENS, (self.eos,))

    def forget(self) -> None:
        self._control.on_all(self._control.urls, "reset_prefix_cache")

    def step(self, prompts: list[tuple[list[int], Path, int | None]]) -> tuple[list[list[list[int]]], dict[str, float]]:
        asked = [Prompt(path.name, tokens, path, seed) for tokens, path, seed in prompts]
        groups = self.pool.generate(asked, self._sampling)
        return [[answer.token_ids for answer in group.answers] for group in groups], {}

    def cpu_seconds(self) -> dict[str, float]:
        engines = [child for server in self._servers for child in server.children(recursive=True)]
        return {"client": time.process_time(), "server": _cpu_seconds(self._servers), "engine": _cpu_seconds(engines)}


class Straight(Epochs):
    """`LLM.generate` in processes of their own, each with its share of a step's prompts."""

    def __init__(self, checkpoint: Path, connections: list[Connection], processes: list[int]) -> None:
        super().__init__(checkpoint)
        self._connections, self._processes = connections, [psutil.Process(pid) for pid in processes]
        self._sampling = {
            "n": ANSWERS, "temperature": 1.0, "max_tokens": TOKENS, "stop_token_ids": [self.eos], "logprobs": 0,
            "detokenize": False,
        }  # fmt: skip

    def wait(self) -> None:
        """Until all are ready."""
        for connection in self._connections:
            if not connection.poll(START_S):
                raise RuntimeError(f"LLM.generate was not ready within {START_S:g} s")
            assert connection.recv() == "ready"

    def forget(self) -> None:
        for connection in self._connections:
            connection.send(None)
        assert all([connection.recv() for connection in self._connections])

    def step(self, prompts: list[tuple[list[int], Path, int | None]]) -> tuple[list[list[list[int]]], dict[str, float]]:
        n = len(self._connections)
        for number, connection in enumerate(self._connections):
            connection.send((prompts[number::n], self._sampling))
        replies = [connection.recv() for connection in self._connections]
        found = [replies[number % n][0][number // n] for number in range(len(prompts))]
        return found, replies[0][1]

    def cpu_seconds(self) -> dict[str, float]:
        engines = [child for one in self._processes for child in one.children(recursive=True)]
        return {"straight": _cpu_seconds(self._processes), "straight_engine": _cpu_seconds(engines)}


def _cpu_seconds(processes: Sequence[psutil.Process]) -> float:
    times = [process.cpu_times() for process in processes]
    return float(sum(t.user + t.system for t in times))


class StraightProcesses:
    """Starts `rollout_straight.py` as often as wanted; `with` ends them."""

    def __init__(self, folder: Path, checkpoint: Path, config: WorkerConfig, count: int, inside: bool = False) -> None:
        self._checkpoint, self._count = checkpoint, count
        self._listener = Listener(str(folder / f"straight-{inside}.socket"), "AF_UNIX")
        features = CachePlace(str(folder / f"features-straight-{inside}"), 4.0)
        environment = worker_environment(config, "none", 0, [folder], features)
        environment |= {"VLLM_ENABLE_V1_MULTIPROCESSING": str(int(not inside)), "PYTHONPATH": str(ROOT)}
        job = {"address": self._listener.address, "arguments": engine_arguments(config, checkpoint)[3:]}
        command = [sys.executable, str(HERE / "rollout_straight.py"), json.dumps(job)]
        log = (folder / f"straight-{inside}.log").open("ab")
        self._processes = [subprocess.Popen(command, env=environment, stdout=log, stderr=log) for _ in range(count)]

    def __enter__(self) -> Straight:
        self._connections = [self._listener.accept() for _ in range(self._count)]
        return Straight(self._checkpoint, self._connections, [process.pid for process in self._processes])

    def __exit__(self, *_: object) -> None:
        for connection in self._connections:
            connection.close()  # which ends them
        self._listener.close()  # while its folder is there
        for process in self._processes:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


def measure(folder: Path, part: str, options: argparse.Namespace) -> dict[str, Any]:
    """One model and number of workers."""
    from trainer.launcher.workers import WorkerSet

    model, _, count = part.partition("-")
    checkpoint, clips = build(folder / "checkpoint", model), STEPS[model] * PROMPTS
    audio = {name: made(folder, name, clips) for name in ("first", "one", "two")}
    time.sleep(SETTLE_S)
    config = WorkerConfig(workers=int(count), threads=options.threads, max_model_len=1024)
    places = CachePlace(str(folder / "features-pool"), 4.0)
    workers = WorkerSet(config, checkpoint.resolve(), [folder.resolve()], folder / "logs", features=places)
    try:
        engine = StraightProcesses(folder, checkpoint, config, 1, inside=True) if count == "1" else nullcontext()
        with StraightProcesses(folder, checkpoint, config, int(count)) as straight, engine as inside:
            workers.wait()
            straight.wait()
            through = ThroughPool(checkpoint, workers)
            found = beside_each_other(through, straight, audio, options.repeats or REPEATS[model])
            through.pool.close()
            if inside is not None:
                inside.wait()
                found["ms_a_group"] = where(inside, audio, found["groups_s"])
            return found
    finally:
        workers.end()


def beside_each_other(
    through: ThroughPool, straight: Straight, audio: dict[str, list[Path]], repeats: int
) -> dict[str, Any]:
    """Both systems by turns."""
    systems: dict[str, Epochs] = {"pool": through, "straight": straight}
    for system in systems.values():
        system.run(audio["first"][:PROMPTS])
    taken: dict[str, dict[str, list[Epoch]]] = {clips: {name: [] for name in systems} for clips in (*CLIPS, "unseeded")}
    for name, system in systems.items():
        taken["cold"][name] += [system.run(audio["one"])]
    for clips in ("warm", "unseeded"):
        for _ in range(repeats):
            for name, system in systems.items():
                taken[clips][name] += [system.run(audio["one"], seeded=clips == "warm")]
    for name, system in reversed(systems.items()):
        taken["cold"][name] += [system.run(audio["two"])]
    speeds = {
        clips: {name: statistics.median(epoch.groups_s for epoch in epochs) for name, epochs in by_system.items()}
        for clips, by_system in taken.items()
    }
    pool, beside = taken["warm"]["pool"][0].answers, taken["warm"]["straight"][0].answers
    same = [a == b for clip in pool for a, b in zip(pool[clip], beside[clip], strict=True)]
    cpu = {}
    for clips in CLIPS:
        sums = taken[clips]["pool"][-1].cpu_s | taken[clips]["straight"][-1].cpu_s
        cpu[clips] = {name: round(1000 * value / len(pool), 2) for name, value in sums.items()}
    return {
        "groups_s": {clips: {name: round(value, 2) for name, value in by.items()} for clips, by in speeds.items()},
        "of_straight": {clips: round(by["pool"] / by["straight"], 3) for clips, by in speeds.items()},
        "unseeded_gain": round(speeds["unseeded"]["pool"] / speeds["warm"]["pool"], 3),
        "same": round(statistics.mean(same), 4),
        "tokens_an_answer": round(statistics.mean(len(a) for group in pool.values() for a in group), 2),
        "cpu_ms_a_group": cpu,
    }


def where(engine: Straight, audio: dict[str, list[Path]], speeds: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Milliseconds a group by what they were spent on."""
    engine.run(audio["first"][:PROMPTS])
    found = {}
    for clips in CLIPS:
        times = engine.run(audio["one"]).times
        steps = len(audio["one"]) // PROMPTS
        calls = times["model_calls"] / steps
        named = {name: value for name, value in times.items() if not name.endswith("_calls") and name != "all"}
        named["rest"] = times["all"] - sum(named.values())
        ms = {name: round(1000 * value / len(audio["one"]), 2) for name, value in named.items()}
        ms["http"] = round(1000 / speeds[clips]["pool"] - 1000 / speeds[clips]["straight"], 2)
        found[clips] = ms | {"steps": calls}
    return found


def made(folder: Path, name: str, count: int) -> list[Path]:
    """The audio of a split of soundscapes."""
    manifest = write_split(folder, name, count, 0, SoundscapeConfig(), workers=1)
    return sorted((manifest.parent / "audio").iterdir())


if __name__ == "__main__":
    sys.exit(main())
