"""What the GRPO loop adds to the longer of generating and training: the real loop, with scripted workers and learner.

    python experiments/benchmarks/ahead_scripted.py [--steps 6]

Loop, sampler, scoring, advantages, rows, record and metrics are the real ones. Scripted is what takes the time: workers
that give 23 groups evenly until `others` and the last, long one at `generate`; a reward that takes `score` for a step's
groups; an update that takes `train`; a sync of `sync`. All are waits, in seconds; what else a step takes is the loop's
own. By case: `step`, its ratio to max(generate, train) (`of_longer`, target at most 1.15 with one step ahead), the same
without (`plain_of_longer`), and `cpu_ms`, the CPU time of a step's own work, which a busy machine stretches.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
# A script beside this one is called like the package `rollout`.
sys.path[:] = [str(ROOT), *(p for p in sys.path if Path(p or ".").resolve() != HERE)]

import torch  # noqa: E402

from rewards import build_reward  # noqa: E402
from rollout.client import Answer, AnswerGroup, Prompt, Sampling  # noqa: E402
from timepro.events import Event  # noqa: E402
from timepro.tasks import Sample  # noqa: E402
from trainer.learner import distributed  # noqa: E402
from trainer.learner.groups import GroupSampler  # noqa: E402
from trainer.learner.grpo import Grpo, GrpoState  # noqa: E402
from trainer.learner.learner import Updated  # noqa: E402
from trainer.learner.order import Mixture  # noqa: E402
from trainer.learner.sender import SyncReport  # noqa: E402
from trainer.learner.tracking import SilentTracker  # noqa: E402
from trainer.settings.groups import GroupsConfig  # noqa: E402
from trainer.settings.grpo import GrpoConfig  # noqa: E402

TARGET = 1.15
PROMPTS, ANSWERS = 24, 8
EVENT = Event(0.4, 1.2, "dog")


@dataclass(frozen=True)
class Case:
    """Seconds that the scripted parts of a step take."""

    generate: float
    others: float
    score: float
    train: float
    sync: float


CASES = {
    "even": Case(generate=1.0, others=0.8, score=0.02, train=1.0, sync=0.1),
    "long_answer": Case(generate=1.5, others=0.5, score=0.02, train=0.7, sync=0.1),
    "slow_scoring": Case(generate=1.0, others=0.7, score=0.25, train=0.7, sync=0.1),
    "long_training": Case(generate=0.5, others=0.4, score=0.02, train=1.0, sync=0.1),
}


def main() -> int:
    """Run every case, print a JSON line; 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=8)
    options = parser.parse_args()
    distributed_store = distributed.join_alone()
    figures = {}
    for name, case in CASES.items():
        (step, cpu), (plain, _) = (step_seconds(case, ahead, options.steps) for ahead in (1, 0))
        longer = max(case.generate, case.train)
        figures[name] = {
            "step": round(step, 3), "of_longer": round(step / longer, 3), "plain_of_longer": round(plain / longer, 3),
            "cpu_ms": round(1000 * cpu, 1),
        }  # fmt: skip
    del distributed_store
    holds = all(case["of_longer"] <= TARGET for case in figures.values())
    targets = {"of_longer": TARGET}
    print(json.dumps({"benchmark": "ahead_scripted", "figures": figures, "targets": targets, "holds": holds}))
    return 0 if holds else 1


class ScriptedPool:
    """In the place of the workers; see above. The first answer of a group is right, the others are not."""

    def __init__(self, case: Case) -> None:
        self._case = case

    def submit(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        arrived: Callable[[int, AnswerGroup], None],
        version: int | None = None,
    ) -> Future[list[AnswerGroup]]:
        """The groups by and by, as `RolloutPool.submit` gives them."""
        future: Future[list[AnswerGroup]] = Future()
        answers = [Answer([0 if number == 0 else 1], [-0.5], False, (version or 0,)) for number in range(sampling.n)]
        groups = [AnswerGroup(prompt.id, prompt.token_ids, answers, "scripted", 0.0) for prompt in prompts]

        def generate() -> None:
            began, last = time.monotonic(), len(groups) - 1
            for place, group in enumerate(groups):
                at = self._case.generate if place == last else self._case.others * (place + 1) / last
                time.sleep(max(0.0, began + at - time.monotonic()))
                arrived(place, group)
            future.set_result(groups)

        threading.Thread(target=generate, daemon=True).start()
        return future


class StepTimes(SilentTracker):
    """Keeps the steps' seconds."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """A step is over."""
        self.seconds.append(metrics["step_time"])


def scripted_learner(case: Case) -> Any:
    """In the place of the learner: rows are made, and the update is a wait."""

    def update(*_: object) -> Updated:
        time.sleep(case.train)
        return Updated({"loss": 0.0}, 1.0, False, 1)

    processor = SimpleNamespace(expanded_prompt=lambda question, frames, before: [7])
    return SimpleNamespace(
        frames=lambda paths: [torch.zeros(1, 4) for _ in paths], processor=processor, fitting=list, update=update
    )


def scripted_reward(case: Case) -> Any:
    """The shipped reward, slowed down."""
    reward = build_reward("eb_f1")
    score = reward.reward

    def slowly(group: Any) -> Any:
        time.sleep(case.score / PROMPTS)
        return score(group)

    reward.reward = slowly
    return reward


def step_seconds(case: Case, ahead: int, steps: int) -> tuple[float, float]:
    """Seconds of a step and its CPU time.

    The median, without the first step, for which nothing was asked ahead, and the last one; the mean.
    """
    config = GrpoConfig(max_steps=steps, ahead=ahead, groups=GroupsConfig(PROMPTS, ANSWERS))
    samples = [Sample(f"clip-{i}", "sed", Path(f"/{i}.flac"), 5.0, "?", (EVENT,), (EVENT,)) for i in range(PROMPTS)]
    texts = ["dog 0.40-1.20", "dog 3.00-4.00"]
    processor: Any = SimpleNamespace(
        eos_token_id=0, prompt_ids=lambda question, before: [7], answer_text=lambda ids: texts[ids[0]]
    )

    def deliver(version: int) -> SyncReport:
        time.sleep(case.sync)
        return SyncReport(version, 0, case.sync, 0.0, 1, None, "dense", case.sync)

    recovery: Any = SimpleNamespace(attempt=lambda work, version: work(), deliver=deliver, checksum_failures=0, count=0)
    state = GrpoState()
    pool: Any = ScriptedPool(case)
    sampler = GroupSampler(
        processor, pool, scripted_reward(case), samples, Mixture([PROMPTS], [1.0], 0), config, 0, recovery
    )
    tracker = StepTimes()
    stop: Any = SimpleNamespace(agreed=lambda: 0)
    checkpoints: Any = SimpleNamespace(failures=0)
    with tempfile.TemporaryDirectory() as folder:
        run, began = Path(folder), time.process_time()
        Grpo(
            scripted_learner(case), sampler, recovery, config, run, state, stop, tracker, checkpoints,
            validate=lambda step: 0.0,
        ).train()  # fmt: skip
    return statistics.median(tracker.seconds[1:-1]), (time.process_time() - began) / steps


if __name__ == "__main__":
    distributed.leave(main())
