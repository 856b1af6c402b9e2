"""Fuzzes the answer parser: generated answers, mangled, some of them 100 kB long; and how its time grows with length.

    taskset -c 0 python experiments/benchmarks/answers.py --strings 1000000

Compared with, in the same run: the parser on a quarter of each long string (its first and last eighth, so that the end
still decides how it is read). Linear time grows by a factor of 4, a little more where the cut changes how the text is
read; quadratic time grows by 16.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Iterator

from timepro.answers import parse_answer
from timepro.answers.times import MAX_SECONDS
from timepro.events import ParsedAnswer

LONGEST = 100_000
LONG = 20_000  # characters from which the time is compared with that of a quarter
GROWTH_TARGET = 8.0
_SHORTEST = 1e-4  # seconds; below it the clock is measured
_RUNS = 7  # a ratio over the target is measured again, with the best of this many runs: the machine may have been busy

LABELS = ["dog", "Speech", "alarm_bell", "a dog barks, loudly", "caf\u00e9 noise", "\u72d7\u53eb\u58f0", "3 knocks", ""]
SHAPES = [
    "{l} {a}-{b}; {m} {c}-{d}",
    "<{a}>{l}<{b}><{c}>{m}<{d}>",
    "The {l} occurs from {a} to {b} seconds and the {m} between {c} and {d} s.",
    "From {a} to {b} s a {l}, then from {c} to {d} s a {m}.",
    "1. {l}: {a}s \u2013 {b}s\n2. **{m}**: {c}s \u2013 {d}s",
    '```json\n[{{"label": "{l}", "onset": {a}, "offset": {b}}}, {{"label": "{m}", "onset": {c}, "offset": {d}}}]\n```',
    '{{"{l}": [[{a}, {b}]], "{m}": "{c}-{d}"}}',
    "[['{l}', {a}, {b}], ('{m}', {c}, {d})]",
    "| {l} | {a} | {b} |\n| {m} | {c} | {d} |",
    "{a}\t{b}\t{l}\n{c}\t{d}\t{m}",
    "{l}\n Start: {a}\n End: {b}\n{m}\n Onset = {c} s, offset = {d} s",
    "00:{a} --> 00:{b}\n{l}\n\n00:{c} --> 00:{d}\n{m}",
    "<think>{l} {a}-{b}</think><answer>{m} {c}-{d}</answer>",
    "{l} [{a}, {b}], ({c}, {d}) {m}",
    "none", "There are no {l} sounds.", "{a}", "{l}",
]  # fmt: skip
PIECES = [
    "<", ">", "<1>", "<|", "[", "]", "{", "}", "(", ")", '"', "'", "`", "*", "|", ",", ";", "\n", "\t", " ", "-", "--",
    "\u2013", "~", ".", "..", ":", "=", "\\", "1", "9", "0.4", ".5", "1-2", "1-2;", "1:2", "1m", "from ", "between ",
    "to ", "and ", "the ", "start ", "end: ", "at ", "s", "sec.", "none", "nan", "inf", "-1", "1e9", "\u0663", "\uff11",
    "</think>", "<answer>", "```", "\u201c", "\x00", "\ud800", "\U0001f436", "no ",
]  # fmt: skip


def answers(count: int, seed: int) -> Iterator[str]:
    """`count` strings: shapes as models write them, mutated; pieces in a row; random characters of all of Unicode."""
    rng = random.Random(seed)
    for _ in range(count):
        kind = rng.random()
        if kind < 0.75:
            text = _mutated(_shaped(rng), rng)
        elif kind < 0.9:
            text = "".join(rng.choices(PIECES, k=rng.randint(0, 40)))
        else:
            text = "".join(map(chr, rng.choices(range(0x110000), k=rng.randint(0, 60))))
        if rng.random() < 0.001:  # a long one, its length spread evenly over the orders of magnitude
            length = int(math.exp(rng.uniform(math.log(1000), math.log(LONGEST + 1))))
            unit = rng.choice([text, rng.choice(PIECES), "".join(rng.choices(PIECES, k=3))]) or " "
            text = (unit * (length // len(unit) + 1))[:length]
        yield text


def _shaped(rng: random.Random) -> str:
    def number() -> str:
        return rng.choice(["{:.2f}", "{:.1f}", "{:.0f}", "{:g}"]).format(rng.uniform(0, 30))

    times = {name: number() for name in "abcd"}
    return rng.choice(SHAPES).format(l=rng.choice(LABELS), m=rng.choice(LABELS), **times)


def _mutated(text: str, rng: random.Random) -> str:
    for _ in range(rng.choice([0, 1, 1, 2, 4, 8])):
        at, length = rng.randint(0, len(text)), rng.randint(1, 6)
        match rng.randrange(6):
            case 0:
                text = text[:at] + text[at + length :]
            case 1:
                text = text[:at] + rng.choice(PIECES) + text[at:]
            case 2:
                text = text[:at] + text[at : at + length] * rng.randint(2, 5) + text[at + length :]
            case 3:
                text = text[at:] + rng.choice([" ", "\n", "; ", ""]) + text[:at]
            case 4:
                text = text[:at]
            case _:
                text = text[:at] + chr(rng.choice([rng.randrange(0x110000), rng.randrange(128)])) + text[at + 1 :]
    return text


def fault(answer: ParsedAnswer) -> str:
    """What is wrong with a result; empty for nothing."""
    for event in answer.events:
        if not (0 <= event.onset < event.offset <= MAX_SECONDS):  # false for NaN too
            return f"times of {event}"
        if event.label != event.label.strip(" ") or "\n" in event.label:
            return f"label of {event}"
    if answer.events and not answer.ok:
        return "events, but not ok"
    if not answer.ok and not answer.repairs:
        return "not ok without a reason"
    return ""


def seconds_of(text: str, runs: int = 1) -> float:
    """CPU seconds for a text, the best of some runs."""
    best = math.inf
    for _ in range(runs):
        begun = time.process_time()
        parse_answer(text)
        best = min(best, time.process_time() - begun)
    return best


def growth(text: str) -> float:
    """Time for a text over that for its first and last eighth."""
    quarter = text[: len(text) // 8] + text[-(len(text) // 8) :]
    ratio = seconds_of(text) / max(seconds_of(quarter), _SHORTEST)
    return ratio if ratio <= GROWTH_TARGET else seconds_of(text, _RUNS) / max(seconds_of(quarter, _RUNS), _SHORTEST)


def main() -> None:
    """Print one JSON line: benchmark, figures, targets, holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strings", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    exceptions, faults, events, usable, clean, characters, longest, slowest = 0, 0, 0, 0, 0, 0, 0, 0.0
    grown: list[float] = []
    begun = time.process_time()
    for text in answers(options.strings, options.seed):
        start = time.process_time()
        try:
            answer = parse_answer(text)
        except Exception as error:
            exceptions += 1
            print(f"exception {error!r} for {text[:200]!r}", flush=True)
            continue
        slowest = max(slowest, time.process_time() - start)
        if problem := fault(answer):
            faults += 1
            print(f"{problem} for {text[:200]!r}", flush=True)
        characters, longest = characters + len(text), max(longest, len(text))
        events, usable, clean = events + len(answer.events), usable + answer.ok, clean + answer.clean
        if len(text) >= LONG:
            grown.append(growth(text))
    # Every piece in a row, with three endings: the cases where a pattern would backtrack.
    grown += [growth((piece * LONGEST)[: LONGEST - 3] + end) for piece in PIECES for end in ("", "1-2", "x")]
    figures = {
        "strings": options.strings,
        "exceptions": exceptions,
        "faults": faults,
        "longest": longest,
        "characters": characters,
        "usable": usable,
        "clean": clean,
        "events": events,
        "slowest_ms": round(slowest * 1e3, 1),
        "cpu_seconds": round(time.process_time() - begun, 1),
        "lengths_compared": len(grown),
        "largest_growth_when_quadrupled": round(max(grown), 2),
    }
    targets = {"exceptions": 0, "faults": 0, "largest_growth_when_quadrupled": GROWTH_TARGET}
    holds = not exceptions and not faults and max(grown) <= GROWTH_TARGET
    print(json.dumps({"benchmark": "answers", "figures": figures, "targets": targets, "holds": holds}))


if __name__ == "__main__":
    main()
