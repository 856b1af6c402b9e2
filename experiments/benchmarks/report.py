"""How long a browser takes to show a report of two runs of 1,000 clips, and how large its file is.

    python experiments/benchmarks/report.py

Needs Chromium. The first paint is the browser's own figure (first contentful paint), the median of five loads.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:] = [str(ROOT), str(ROOT / "tests"), *(p for p in sys.path if Path(p).resolve() != Path(__file__).parent)]

from browser import Browser, chromium  # noqa: E402
from timepro.report import write_report  # noqa: E402

TARGETS = {"first_paint_ms": 1000.0, "size_mib": 20.0}
LABELS = ("siren", "dog_bark", "speech", "engine", "alarm_beep", "glass_breaking")
PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"


def make_run(folder: Path, clips: int, seed: int) -> Path:
    """A run's evaluation: up to four events a clip, found most of the time."""
    world, rng = np.random.default_rng(0), np.random.default_rng(seed)
    lines = []
    for i in range(clips):
        reference = [
            {"onset": round(float(on), 2), "offset": round(float(on) + 1.0, 2), "label": str(world.choice(LABELS))}
            for on in np.sort(world.uniform(0, 8, world.integers(1, 5)))
        ]
        found = [event for event in reference if rng.random() < 0.7]
        answer = "\n".join(f"<{e['onset']:.2f}>{e['label']}<{e['offset']:.2f}>" for e in found)
        lines.append(
            {
                "id": f"test-{i:06d}", "task": "sed", "question": "Detect the sound events.", "duration": 10.0,
                "audio": f"/data/{i}.flac", "reference": reference, "answer": answer, "events": found, "ok": True,
            }
        )  # fmt: skip
    (folder / "eval").mkdir(parents=True)
    (folder / "eval" / "grpo.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    steps = [{"step": s, "reward": s / 900, "entropy": 2 - s / 900} for s in range(1, 901)]
    (folder / "metrics.grpo.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
    return folder


def main() -> int:
    """Measure, print a JSON line; 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=1000)
    clips = parser.parse_args().clips
    if chromium() is None:
        print("there is no Chromium on the PATH", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        size = write_report([make_run(Path(folder) / name, clips, k) for k, name in enumerate("ab")], page, audio=0)
        browser = Browser(Path(folder) / "profile")
        try:
            paints = []
            for _ in range(5):
                browser.open(page.as_uri())
                browser.until(f"{PAINT} > 0")
                paints.append(float(browser.get(PAINT)))
        finally:
            browser.close()
    figures = {"clips": clips, "first_paint_ms": statistics.median(paints), "size_mib": size / 2**20}
    holds = all(figures[key] <= limit for key, limit in TARGETS.items())
    print(json.dumps({"benchmark": "report", "figures": figures, "targets": TARGETS, "holds": holds}))
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
