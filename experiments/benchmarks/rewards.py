"""Answers a second that event-based F1 scores on one core, in groups as rewards see them and over a test set.

    taskset -c 0 python experiments/benchmarks/rewards.py PREDICTIONS REFERENCE

Compared with, in the same run and on the same answers: `sed_eval` with optimal matching. Each takes its own input as it
comes: lists of events here, ready-made metadata containers there. A group is what a system found in a file and
variations of it, as samples of one model vary: boundaries moved, events missing or doubled.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from timepro.data.event_files import read_event_file
from timepro.data.event_parts import FileEvents
from timepro.events import Event, ParsedAnswer
from timepro.metrics.event_based import EventReference, corpus_event_f1, group_event_f1

TARGET = 100.0
Answers = Sequence[Sequence[Event]]


def varied(events: Sequence[Event], rng: np.random.Generator) -> list[Event]:
    """An answer like this one: boundaries off by 0.1 s, one event in ten missing, one in twenty said twice."""
    answer = []
    for event in events:
        onset = max(0.0, round(event.onset + rng.normal(0, 0.1), 2))
        offset = round(max(event.offset + rng.normal(0, 0.1), onset + 0.04), 2)
        answer += [Event(onset, offset, event.label)] * rng.choice(3, p=[0.1, 0.85, 0.05])
    return answer


def rewarded(references: Answers, groups: Sequence[Answers]) -> tuple[Callable[[Any], np.ndarray], list[Any]]:
    """The reward `eb_f1`, compared without a tolerance, and the groups as it takes them."""
    # A script's folder leads the search path, and there this file would pass for the package `rewards`.
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != Path(__file__).resolve().parent]
    from rewards import Completion, Group, build_reward

    return build_reward({"name": "eb_f1", "tolerance": 0.0}), [
        Group(tuple(r), tuple(Completion("", ParsedAnswer(list(a), True), False, 0) for a in g), "sed", 10.0, "")
        for r, g in zip(references, groups, strict=True)
    ]


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


class SedEval:
    """The reference implementation, with its inputs made beforehand."""

    def __init__(self, references: Answers, groups: Sequence[Answers]) -> None:
        import dcase_util
        import sed_eval

        def rows(events: Sequence[Event]) -> object:
            keys = ("onset", "offset", "event_label")
            return dcase_util.containers.MetaDataContainer(
                [dict(zip(keys, (e.onset, e.offset, e.label), strict=True)) | {"filename": "x.wav"} for e in events]
            )

        self.pairs = [(rows(r), rows(answer)) for r, group in zip(references, groups, strict=True) for answer in group]
        self.metrics = sed_eval.sound_event.EventBasedMetrics(
            event_label_list=sorted({e.label for events in references for e in events}),
            t_collar=0.2,
            percentage_of_length=0.2,
            empty_system_output_handling="zero_score",
            event_matching_type="optimal",
        )

    def evaluate(self) -> float:
        """Score every pair; returns the micro F1."""
        for reference, answer in self.pairs:
            self.metrics.evaluate(reference, answer)
        return self.metrics.results_overall_metrics()["f_measure"]["f_measure"]


def main() -> None:
    """Print one JSON line: benchmark, figures, targets, holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("predictions", type=Path)
    parser.add_argument("reference", type=Path)
    parser.add_argument("--answers", type=int, default=8, help="answers in a group")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    files, found = (
        read_event_file(path, role)
        for path, role in ((options.reference, "reference"), (options.predictions, "predictions"))
    )
    references = [entry.events for entry in files.values()]
    answers = [found.get(name, FileEvents()).events for name in files]
    rng = np.random.default_rng(0)
    groups = [[a, *(varied(a, rng) for _ in range(options.answers - 1))] for a in answers]
    print(json.dumps(measure(references, answers, groups)))


def measure(references: Answers, answers: Answers, groups: Sequence[Answers]) -> dict[str, object]:
    """The benchmark's record. Raises ValueError where the two implementations disagree."""
    n, n_grouped = len(references), sum(map(len, groups))
    reward, scored = rewarded(references, groups)
    alone, grouped = SedEval(references, [[answer] for answer in answers]), SedEval(references, groups)
    rounds: dict[str, list[float]] = {name: [] for name in ("sed_eval", "corpus", "groups", "reward")}
    for _ in range(3):  # in turn, so that a busy moment of the machine meets all of them
        rounds["sed_eval"].append(seconds(grouped.evaluate) / n_grouped)
        for _ in range(5):
            rounds["corpus"].append(seconds(lambda: corpus_event_f1(references, answers)) / n)
            rounds["groups"].append(
                seconds(lambda: [group_event_f1(r, g) for r, g in zip(references, groups, strict=True)]) / n_grouped
            )
            rounds["reward"].append(seconds(lambda: [reward(group) for group in scored]) / n_grouped)
    per_second = {name: 1 / float(np.median(times)) for name, times in rounds.items()}
    check(references, answers, groups, alone.evaluate(), grouped)
    contested = sum(
        any(len(prepared.candidates(event)) > 1 for event in answer)
        for prepared, group in zip(map(EventReference, references), groups, strict=True)
        for answer in group
    )
    figures = {f"{name}_clips_per_second": round(rate) for name, rate in per_second.items()}
    figures |= {
        f"{name}_over_sed_eval": round(per_second[name] / per_second["sed_eval"], 1) for name in list(rounds)[1:]
    }
    figures |= {"clips": n, "answers_in_groups": n_grouped, "answers_that_needed_the_matching": contested}
    return {
        "benchmark": "rewards",
        "figures": figures,
        "targets": {"groups_over_sed_eval": TARGET},
        "holds": figures["groups_over_sed_eval"] >= TARGET,
    }


def check(references: Answers, answers: Answers, groups: Sequence[Answers], alone: float, grouped: SedEval) -> None:
    """Refuse to report the speed of a wrong result."""
    ours = corpus_event_f1(references, answers).micro.f1
    repeated = [reference for reference, group in zip(references, groups, strict=True) for _ in group]
    flat = corpus_event_f1(repeated, [answer for group in groups for answer in group]).micro.f1
    for mine, theirs in ((ours, alone), (flat, grouped.evaluate())):
        if abs(mine - theirs) > 1e-12:
            raise ValueError(f"event-based F1 is {mine} here and {theirs} by sed_eval")


if __name__ == "__main__":
    main()
