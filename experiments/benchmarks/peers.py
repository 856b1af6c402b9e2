"""This project's GRPO beside ms-swift's and TRL's: samples a second end to end, start-up, memory, time to a reward.

    python experiments/benchmarks/peers.py [--parts ours swift trl] [--folder runs/peers]

All train the shipped small base (Qwen2.5-Omni's classes) for `--steps` steps of 12 prompts x 8 answers of at most 20
tokens, on the same cores with as many threads: the same 5 s clips, question, reward, objective and optimiser, three
repeats with medians; the first step is left out for all, and told apart. A sample is an answer generated, scored and
trained on, with the weights handed back to what generates.

- `ours`: `timepro train`: a vLLM worker, a ZeRO-3 learner rank, the weights sent after each step;
- `swift`: ms-swift, on the same checkpoint and clips, generating by transformers;
- `trl`: TRL, whose training takes no audio (`audio_part` counts the encoder's calls where the message has audio): the
  decoder as a text model, on prompts of as many tokens, with the encoder's frames as ready-made words. So it answers
  as the others do, and is spared features and encoder. `text_part` has the others' token ids, and hears nothing.

By part: `samples_s`, `step_s` of steps on clips that nobody has seen before, `later_samples_s` of later epochs (here
features and encoded audio are kept), `start_s` (from the command to the first step), `peak_mib` (PSS of all processes),
`answer_tokens`; `time_to`, from a longer run: until the mean reward of five steps is `--until`. ms-swift and TRL are
installed into environments of their own under the folder. A part's result is kept there, so parts may be measured one
after another: the last line has all that are there, for the same workload and cores. What could not be installed or
run has a `reason` in place of figures. `--model grown` does the same with ten times the parameters.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
# Last, since a script beside this one is called like the package `rollout`.
sys.path[:] = [str(ROOT), *(p for p in sys.path if Path(p or ".").resolve() != HERE), str(HERE)]

import peers_ours  # noqa: E402
from peers_install import NotInstalled, install, installed_version, say  # noqa: E402
from peers_task import PROMPTS  # noqa: E402
from peers_watch import Failed, figures_of, later_epochs, medians, time_to, watched  # noqa: E402
from peers_workload import prepare  # noqa: E402

from timepro import __version__  # noqa: E402

PARTS = ("ours", "swift", "trl")
TARGETS = {"of_swift": 5.0, "of_trl": 3.0, "memory_of_swift": 1.0}  # at least, at least, at most
# Answers of a micro-batch: the fastest of 24, 48 and 96 for each.
BATCH = {"swift": 24, "trl": 24}
OTHER_STEPS = 4
RUN_S = 400.0


def main() -> int:
    """Measure, print a JSON line; 1 where a target is missed or a part is not there."""
    options = arguments()
    folder = options.folder.resolve()
    results = folder / "results" / options.model
    results.mkdir(parents=True, exist_ok=True)
    cores = options.cores or sorted(os.sched_getaffinity(0))[:2]
    workload = prepare(folder / f"workload-{options.model}", PROMPTS * options.steps, options.model)
    setting = {
        "workload": workload,
        "steps": options.steps,
        "repeats": options.repeats,
        "cores": len(cores),
        "processor": processor(),
    }
    for part in options.parts:
        began = time.time()
        for stage in (measured, other_kinds, learnt):
            try:
                found = stage(part, folder, cores, options)
            except (NotInstalled, Failed) as error:
                found = {"reason": str(error)}
            keep(results / f"{part}.json", setting, found, began, anew=stage is measured)
            if "reason" in found:
                break
    kept = kept_results(results, setting, options.until)
    ratios = ratios_of(kept)
    holds = holds_all(ratios)
    figures = {**setting, **kept, **ratios}
    print(json.dumps({"benchmark": "peers", "figures": figures, "targets": TARGETS, "holds": holds}))
    return 0 if holds else 1


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS), help="none: tell what is kept")
    parser.add_argument("--folder", type=Path, default=Path("runs/peers"), help="environments, clips, results, logs")
    parser.add_argument(
        "--model", choices=("base", "grown"), default="base", help="as shipped, or 10 million parameters"
    )
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cores", type=int, nargs="+", help="the first two of this process; threads: as many")
    parser.add_argument("--until", type=float, default=0.85, help="the mean reward whose time is told")
    parser.add_argument("--long-steps", type=int, default=60, help="of the run whose rewards are told; 0: no such run")
    parser.add_argument("--long-seconds", type=float, default=240, help="of a peer's training in that run, at most")
    parser.add_argument("--batch", type=int, help="answers of a peer's micro-batch, in place of its best")
    return parser.parse_args()


def keep(path: Path, setting: dict[str, Any], found: dict[str, Any], began: float, anew: bool) -> None:
    """Write what has been found of a part so far, so that a run that is cut off keeps it."""
    before = {} if anew or not path.is_file() else json.loads(path.read_text(encoding="utf-8"))["figures"]
    told = {"minutes": round((time.time() - began) / 60, 1), "date": date.today().isoformat()}
    figures = {**before, **found, **told}
    path.write_text(json.dumps({"setting": setting, "figures": figures}, indent=1), encoding="utf-8")
    said = {name: value for name, value in found.items() if name != "curve"}
    say(f"{path.stem}: {json.dumps({**said, **told})}")


def measured(part: str, folder: Path, cores: list[int], options: argparse.Namespace) -> dict[str, Any]:
    """The figures of one part, over all repeats.

    Raises:
        NotInstalled: its environment could not be made.
        Failed: a run failed.
    """
    if part == "ours":
        versions = {"version": __version__, "threads": len(cores)}
    else:
        python = install(part, folder / "environments")
        versions = {"version": installed_version(python, part), "micro_batch": options.batch or BATCH[part]}
    runs = [one_run(part, folder, cores, options, seed, options.steps) for seed in range(options.repeats)]
    found: dict[str, Any] = {**versions, **medians(runs)}
    for name in ("seconds", "encoder_calls"):
        if name in runs[0]:
            found[name] = runs[0][name]
    return found


def other_kinds(part: str, folder: Path, cores: list[int], options: argparse.Namespace) -> dict[str, Any]:
    """What TRL makes of a message with audio, and of the audio's token ids alone; nothing for others."""
    if part != "trl" or options.model != "base":
        return {}
    return {f"{kind}_part": other_kind(kind, folder, cores, options) for kind in ("audio", "text")}


def learnt(part: str, folder: Path, cores: list[int], options: argparse.Namespace) -> dict[str, Any]:
    """The rewards of one longer run, and when each step ended; nothing where that is not asked for."""
    if not options.long_steps:
        return {}
    run = one_run(part, folder, cores, options, options.repeats, options.long_steps)
    return {"curve": {name: run[name] for name in ("started", "began", "ends", "rewards")}}


def one_run(
    part: str, folder: Path, cores: list[int], options: argparse.Namespace, seed: int, steps: int,
    kind: str = "frames",
) -> dict[str, Any]:  # fmt: skip
    """Start a system, let it train, and return its run as `figures_of` wants it."""
    place = folder / "runs" / f"{part}-{kind}-{seed}"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    environment = {"OMP_NUM_THREADS": str(len(cores)), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    # ms-swift's: the faster of its ways to read a clip, and no look for the model on a hub that may not be reached.
    environment |= {"SWIFT_AUDIO_LOAD_BACKEND": "soundfile_pyav", "USE_HF": "1"}
    log, workload = place / "log", folder / f"workload-{options.model}"
    if part == "ours":
        return our_run(place, workload, cores, steps, seed)
    result = place / "result.json"
    job = {
        "folder": str(workload), "result": str(result), "output": str(place / "output"), "seed": seed,
        "seconds": options.long_seconds, "steps": steps, "batch": options.batch or BATCH[part], "kind": kind,
    }  # fmt: skip
    python = folder / "environments" / part / "bin" / "python"
    command = [str(python), str(HERE / f"peers_{part}.py"), json.dumps(job)]
    started, peak = watched(command, environment, log, cores, RUN_S)
    return {"started": started, "peak_mib": peak, **json.loads(result.read_text(encoding="utf-8"))}


def our_run(place: Path, workload: Path, cores: list[int], steps: int, seed: int) -> dict[str, Any]:
    """A run of `timepro train`; caches of earlier repeats do not count."""
    experiment, runs = place / "experiment.yaml", place / "runs"
    peers_ours.write_experiment(experiment, peers_ours.settings(workload, runs, steps, len(cores), seed))
    metrics, first_seen = peers_ours.metrics_file(runs), 0.0

    def look() -> None:
        nonlocal first_seen
        if not first_seen and metrics.is_file() and metrics.stat().st_size:
            first_seen = time.time()

    environment = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(HERE)])}
    started, peak = watched(peers_ours.command(experiment), environment, place / "log", cores, RUN_S, look)
    return {"started": started, "peak_mib": peak, **peers_ours.steps_of(metrics, first_seen)}


def other_kind(kind: str, folder: Path, cores: list[int], options: argparse.Namespace) -> dict[str, Any]:
    """A short run of TRL on prompts of another kind, or why there was none."""
    try:
        run = one_run("trl", folder, cores, options, 0, OTHER_STEPS, kind)
    except Failed as error:
        return {"reason": str(error)}
    figures = figures_of(run)
    named = {name: round(figures[name], 2) for name in ("samples_s", "step_s", "answer_tokens")}
    return {**named, "encoder_calls": run["encoder_calls"]}


def kept_results(folder: Path, setting: dict[str, Any], until: float) -> dict[str, Any]:
    """Figures of all parts that were measured with the same workload on the same kind of cores."""
    found = {}
    for part in PARTS:
        path = folder / f"{part}.json"
        if path.is_file():
            result = json.loads(path.read_text(encoding="utf-8"))
            if result["setting"] == setting:
                found[part] = result["figures"]
                if curve := found[part].pop("curve", None):
                    found[part] |= later_epochs(curve, setting["steps"])
                    found[part]["time_to"] = time_to(curve, until)
    return found


def ratios_of(kept: dict[str, Any]) -> dict[str, float]:
    """Ours over each peer's, for parts that have figures."""
    ours, found = kept.get("ours", {}), {}
    for peer in ("swift", "trl"):
        theirs = kept.get(peer, {})
        for name, figure in (("", "samples_s"), ("later_", "later_samples_s"), ("memory_", "peak_mib")):
            if figure in ours and figure in theirs:
                found[f"{name}of_{peer}"] = round(ours[figure] / theirs[figure], 2)
    return found


def holds_all(ratios: dict[str, float]) -> bool:
    """Whether all targets have a figure and are met, for clips that nobody has seen and for seen ones."""
    least = {name: TARGETS[name] for name in ("of_swift", "of_trl")}
    least |= {f"later_{name}": value for name, value in least.items() if f"later_{name}" in ratios}
    fast = all(ratios.get(name, 0.0) >= value for name, value in least.items())
    return fast and ratios.get("memory_of_swift", float("inf")) <= TARGETS["memory_of_swift"]


def processor() -> str:
    """The processor's name."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


if __name__ == "__main__":
    sys.exit(main())
