"""The parts of experiments/benchmarks/peers.py that need no peer."""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from rewards import Completion, Group
from timepro.config import load_experiment
from timepro.events import Event, ParsedAnswer
from timepro.families import family_of
from trainer.settings.experiment import ExperimentConfig

BENCHMARKS = Path(__file__).resolve().parents[1] / "experiments" / "benchmarks"


@pytest.fixture(autouse=True)
def beside_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scripts find each other; last, since one is called like the package `rollout`."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(BENCHMARKS)])


def script(name: str) -> Any:
    return importlib.import_module(name)


def test_the_reward_wants_the_right_sounds_in_the_right_order() -> None:
    in_order = script("peers_task").in_order
    assert in_order("siren, dog_bark, speech", "siren, dog_bark, speech") == 1
    assert in_order("speech, dog_bark, siren", "siren, dog_bark, speech") == pytest.approx(1 / 3)
    assert in_order("siren, speech", "siren, dog_bark, speech") == pytest.approx(4 / 5)
    assert in_order("siren, siren, siren, siren", "siren, siren") == pytest.approx(4 / 6)
    assert in_order("", "siren") == in_order("nonsense", "siren") == 0


def test_our_trainer_is_given_the_same_reward() -> None:
    texts = ["siren, dog_bark", "dog_bark, siren", "none"]
    completions = tuple(Completion(text, ParsedAnswer([], True), False, 3) for text in texts)
    group = Group((Event(0.0, 5.0, "siren, dog_bark"),), completions, "order", 5.0, "a", labels_are_classes=False)
    assert script("peers_ours").reward(group).tolist() == [1.0, 0.5, 0.0]


def test_our_experiment_is_one_that_the_trainer_reads(tmp_path: Path) -> None:
    ours = script("peers_ours")
    values = ours.settings(tmp_path / "workload", tmp_path / "runs", steps=8, threads=2, seed=3)
    ours.write_experiment(tmp_path / "experiment.yaml", values)
    config = load_experiment(str(tmp_path / "experiment.yaml"), [], ExperimentConfig, tmp_path)
    groups = config.grpo.groups
    assert (groups.prompts_per_step, groups.group_size, groups.max_tokens, config.seed) == (12, 8, 20, 3)
    assert not config.sft.enabled and config.grpo.max_steps == 8 and config.rewards == "peers_ours:reward"


def test_a_grown_model_says_what_the_shipped_one_says(tmp_path: Path) -> None:
    workload = script("peers_workload")
    logits, parameters = [], []
    for name in ("base", "grown"):
        parameters.append(workload.write_checkpoint(tmp_path / name, name == "grown"))
        family = family_of(tmp_path / name)
        model: Any = family.load(tmp_path / name, torch.float32)
        with torch.no_grad():
            logits.append(model(input_ids=torch.arange(40)[None]).logits)
    assert parameters[1] > 10 * parameters[0] and (tmp_path / "grown" / "spk_dict.pt").is_file()
    assert (logits[0] - logits[1]).abs().max() < 1e-4 < logits[0].std()


def a_run(step_s: float, rewards: list[float], started: float = 100.0) -> dict[str, Any]:
    began = started + 30
    ends = [began + step_s * (number + 1) for number in range(len(rewards))]
    tokens = [6.0] * len(rewards)
    return {"started": started, "peak_mib": 1500.0, "began": began, "ends": ends, "rewards": rewards, "tokens": tokens}


def test_figures_tell_the_first_step_apart_and_take_the_median_of_repeats() -> None:
    watch = script("peers_watch")
    run = a_run(2.0, [0.5] * 4)
    run["ends"] = [end + 4.0 for end in run["ends"]]  # a slow first step
    found = watch.figures_of(run)
    assert found["samples_s"] == pytest.approx(96 / 2.0)
    assert (found["step_s"], found["first_step_s"], found["start_s"]) == (2.0, 6.0, 30.0)
    together = watch.medians([a_run(seconds, [0.5] * 4) for seconds in (1.0, 4.0, 2.0)])
    assert (together["samples_s"], together["samples_s_least"], together["samples_s_most"]) == (48.0, 24.0, 96.0)


def test_a_reward_is_reached_by_the_mean_of_five_steps() -> None:
    time_to = script("peers_watch").time_to
    found = time_to(a_run(2.0, [0.1, 0.9, 0.1, 0.6, 0.6, 0.6, 0.6, 0.6, 0.7]), 0.6)
    assert (found["steps"], found["training_s"], found["seconds"]) == (8, 16.0, 46.0)
    never = time_to(a_run(2.0, [0.1] * 7), 0.6)
    assert never["steps"] is None and never["gave_up_after_s"] == 14.0


def test_steps_of_our_run_stand_on_the_clock_of_the_others(tmp_path: Path) -> None:
    lines = [
        {"step": n, "elapsed_s": 40.0 + 2 * n, "step_time": 1.9, "reward": 0.5, "completions/mean_length": 6.0}
        | {f"time/{phase}": 0.4 for phase in ("generate", "rows", "train", "sync")}
        for n in (1, 2, 3)
    ]
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = script("peers_ours").steps_of(path, first_seen=1000.0)
    assert found["ends"] == [1000.0, 1002.0, 1004.0] and found["began"] == pytest.approx(998.1)


def test_results_of_another_workload_are_not_compared(tmp_path: Path) -> None:
    peers = script("peers")
    for part, setting, speed in (("ours", "here", 100.0), ("swift", "here", 16.0), ("trl", "elsewhere", 30.0)):
        figures = {"samples_s": speed, "peak_mib": 2000.0}
        result = {"setting": {"steps": 8, "place": setting}, "figures": figures}
        (tmp_path / f"{part}.json").write_text(json.dumps(result))
    ratios = peers.ratios_of(peers.kept_results(tmp_path, {"steps": 8, "place": "here"}, 0.6))
    assert ratios == {"of_swift": 6.25, "memory_of_swift": 1.0}
    assert not peers.holds_all(ratios)  # TRL's is missing
    assert peers.holds_all(ratios | {"of_trl": 3.0}) and not peers.holds_all(ratios | {"of_trl": 2.9})
    assert not peers.holds_all(ratios | {"of_trl": 3.0, "later_of_swift": 4.9})


def test_a_part_that_is_cut_off_keeps_what_it_has(tmp_path: Path) -> None:
    peers, path = script("peers"), tmp_path / "swift.json"
    setting = {"steps": 2}
    peers.keep(path, setting, {"reason": "of another day"}, time.time(), anew=False)
    peers.keep(path, setting, {"samples_s": 16.0, "peak_mib": 900.0}, time.time(), anew=True)
    peers.keep(path, setting, {"curve": a_run(2.0, [0.6] * 6)}, time.time() - 120, anew=False)
    kept = peers.kept_results(tmp_path, setting, 0.6)["swift"]
    assert kept["later_samples_s"] == 48.0
    assert kept["samples_s"] == 16.0 and kept["minutes"] == 2.0 and "reason" not in kept and "curve" not in kept
    assert kept["time_to"]["steps"] == 5 and kept["time_to"]["training_s"] == 10.0


def test_a_peer_without_figures_is_told_with_its_reason(tmp_path: Path) -> None:
    peers = script("peers")
    (tmp_path / "swift.json").write_text(json.dumps({"setting": 1, "figures": {"reason": "pip could not"}}))
    kept = peers.kept_results(tmp_path, 1, 0.6)
    assert kept["swift"]["reason"] == "pip could not" and peers.ratios_of(kept) == {}


def test_an_environment_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installing = script("peers_install")
    monkeypatch.setattr(installing.subprocess, "run", lambda *_, **__: pytest.fail("made again"))
    (tmp_path / "trl").mkdir()
    (tmp_path / "trl" / "installed.txt").write_text("\n".join(installing.wanted("trl")))
    assert installing.install("trl", tmp_path) == tmp_path / "trl" / "bin" / "python"
    assert {"trl==1.16.0"} < set(installing.wanted("trl")) and installing.wanted("trl")[0].startswith("torch==")


def test_a_failed_install_says_what_pip_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installing = script("peers_install")

    real = installing.run

    def run(command: list[str]) -> None:
        if "venv" not in command:
            return real(command)
        python = Path(command[-1]) / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text("#!/bin/sh\necho 'no such release' >&2; exit 1\n")
        python.chmod(0o755)

    monkeypatch.setattr(installing, "run", run)
    with pytest.raises(installing.NotInstalled, match="torch==.*no such release"):
        installing.install("trl", tmp_path)
    assert not (tmp_path / "trl" / "installed.txt").exists()


def test_a_command_is_watched_to_its_end(tmp_path: Path) -> None:
    watch, cores = script("peers_watch"), sorted(os.sched_getaffinity(0))[:1]
    code = "import os, time; x = bytearray(300 * 2**20); time.sleep(2.6); assert len(os.sched_getaffinity(0)) == 1"
    started, peak = watch.watched([sys.executable, "-c", code], {}, tmp_path / "log", cores, 60.0)
    assert 290 < peak < 600 and started <= time.time()
    with pytest.raises(watch.Failed, match=r"exit code 3.*it went wrong"):
        code = "import sys; print('it went wrong'); sys.exit(3)"
        watch.watched([sys.executable, "-c", code], {}, tmp_path / "log", cores, 60.0)
    with pytest.raises(watch.Failed, match="not done within 0.5 s"):
        watch.watched(["sleep", "60"], {}, tmp_path / "log", cores, 0.5)


STAND_IN = """#!{python}
import json, sys, time
if sys.argv[1] == "-c":
    print("9.9")
    sys.exit()
job = json.loads(sys.argv[2])
if job["kind"] == "audio":
    sys.exit("it takes no audio")
speed = 40.0 if "swift" in sys.argv[1] else 80.0
ends = [job["seed"] + 96 / speed * (n + 1) for n in range(job["steps"])]
calls = dict(sampling=0, training=0)
found = dict(began=0.0, ends=ends, rewards=[0.9] * len(ends), tokens=[6.0] * len(ends), encoder_calls=calls)
open(job["result"], "w").write(json.dumps(found))
time.sleep(0.3)
"""
OURS = """
import json, sys, time
path = open(sys.argv[1], "a")
for n in range(int(sys.argv[2])):
    line = {"step": n + 1, "elapsed_s": 0.4 * (n + 1), "step_time": 0.4, "reward": 0.9, "completions/mean_length": 6.0}
    line |= {f"time/{phase}": 0.1 for phase in ("generate", "rows", "train", "sync")}
    path.write(json.dumps(line) + chr(10))
path.flush()
time.sleep(0.4)
"""


def test_all_parts_are_measured_and_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With stand-ins for the three systems: ours 240 samples a second, ms-swift 40, TRL 80."""
    peers, ours = script("peers"), script("peers_ours")
    for peer in ("swift", "trl"):
        place = tmp_path / "environments" / peer
        (place / "bin").mkdir(parents=True)
        (place / "installed.txt").write_text("\n".join(script("peers_install").wanted(peer)))
        (place / "bin" / "python").write_text(STAND_IN.format(python=sys.executable))
        (place / "bin" / "python").chmod(0o755)

    def command(experiment: Path) -> list[str]:
        values = json.loads(experiment.read_text())
        metrics = ours.metrics_file(Path(values["runs"]))
        metrics.parent.mkdir(parents=True)
        return [sys.executable, "-c", OURS, str(metrics), str(values["grpo"]["max_steps"])]

    monkeypatch.setattr(ours, "command", command)
    monkeypatch.setattr(peers, "prepare", lambda *_: {"clips": 36})
    arguments = ["--folder", str(tmp_path), "--steps", "3", "--repeats", "2", "--long-steps", "6", "--until", "0.8"]
    monkeypatch.setattr(sys, "argv", ["peers.py", *arguments])
    peers.main()  # its exit code says nothing here: stand-ins take what memory they take
    told = json.loads(capsys.readouterr().out)
    figures = told["figures"]
    assert (figures["ours"]["samples_s"], figures["swift"]["samples_s"], figures["trl"]["samples_s"]) == (240, 40, 80)
    assert (figures["of_swift"], figures["of_trl"]) == (6.0, 3.0) and told["targets"]["of_swift"] == 5.0
    assert "it takes no audio" in figures["trl"]["audio_part"]["reason"]
    assert figures["swift"]["time_to"]["steps"] == figures["ours"]["time_to"]["steps"] == 5
