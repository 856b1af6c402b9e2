"""What a run needs, part by part, and what is said where it does not fit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from timepro.config import load_experiment
from timepro.data.clips import Clip, ManifestEvent
from timepro.data.manifest import write_manifest
from trainer.launcher import doctor
from trainer.launcher.doctor import _cards, _memory
from trainer.launcher.nodes.node import Node
from trainer.launcher.plan import machine
from trainer.launcher.plan.architecture import architecture_of
from trainer.launcher.plan.learner import GIB, how_of, largest_pass, rank_memory, trained_of
from trainer.launcher.plan.machine import Machine, card_of, machine_of
from trainer.launcher.plan.passes import Pass, kept_bytes, working_bytes
from trainer.launcher.plan.plan import Plan, plan_of
from trainer.launcher.plan.seconds import train_flop
from trainer.launcher.plan.states import gradient_bytes, offloaded_bytes, optimiser_bytes, weight_bytes
from trainer.launcher.plan.tokens import tokens_of
from trainer.settings.experiment import ExperimentConfig

EXPERIMENTS = Path(__file__).resolve().parents[4] / "experiments"
ALL = ["lora.rank=0", "lora.continue=false"]
SEVEN_B = 7_621_121_536  # of Qwen2.5-Omni-7B's decoder and head, with timestamps


def load(experiment: str, *overrides: str) -> ExperimentConfig:
    return load_experiment(experiment, overrides, ExperimentConfig, EXPERIMENTS)


def cards(count: int, gb: float, nodes: int = 1) -> Machine:
    kind = card_of(gb)
    return Machine(nodes, (kind.gib,) * count, kind)


def plan(experiment: str, on: Machine, *overrides: str) -> Plan:
    return plan_of(load(experiment, *overrides), on)


@pytest.mark.parametrize("ranks", [1, 4])
def test_bytes_a_trained_number(ranks: int) -> None:
    config = load("qwen2_5_omni_7b/sed_grpo", *ALL)
    architecture = architecture_of(config.model)

    def held(gpu: bool = True) -> tuple[float, float, float, float]:
        one = trained_of(config, architecture, ranks, gpu, True)
        sizes = (weight_bytes(one), gradient_bytes(one), optimiser_bytes(one), offloaded_bytes(one))
        return tuple(round(size * ranks / SEVEN_B, 6) for size in sizes)  # type: ignore[return-value]

    assert held() == (2, 4, 12, 0)
    assert held(gpu=False) == (4, 4, 12, 0)
    config.zero.offload_optimiser = True
    assert held() == (2, 0, 0, 20)
    config.lora.rank, config.zero.offload_optimiser = 8, False
    adapters = 20_185_088 / SEVEN_B
    assert held() == pytest.approx((2 + 4 * adapters, 4 * adapters, 12 * adapters, 0), abs=1e-6)


def test_checkpointing_keeps_a_layers_input_and_computes_one_layer_again() -> None:
    config = load("qwen2_5_omni_7b/sed_grpo")
    decoder, one = architecture_of(config.model).decoder, Pass(2, 1000, 4, 100)
    with_, without = how_of(config, config.grpo.batch, True), how_of(config, config.sft.batch, True)
    assert with_.checkpointing and without.checkpointing
    config.grpo.batch.gradient_checkpointing = False
    without = how_of(config, config.grpo.batch, True)
    difference = kept_bytes(decoder, without, one) - kept_bytes(decoder, with_, one)
    again = working_bytes(decoder, with_, one) - working_bytes(decoder, without, one)
    assert difference == pytest.approx(27 * (again - 2 * decoder.hidden * one.tokens))


def test_the_largest_micro_batch() -> None:
    config = load("qwen2_5_omni_7b/sed_grpo", "grpo.groups.prompts_per_step=6", "grpo.batch.micro_batch_tokens=8192")
    tokens = tokens_of(config, architecture_of(config.model), seconds=10.0)
    assert tokens.longest_prompt == 250 + 250 + tokens.question
    width = tokens.longest_prompt + 4 * 511
    assert largest_pass(config, tokens, 1, grpo=True) == Pass(8192 // width, width, 4, 512)
    assert largest_pass(config, tokens, 6, grpo=True).rows == 1  # a rank has no more
    assert largest_pass(config, tokens, 1, grpo=False).branched is False


def test_the_papers_settings_fit_eight_cards_of_eighty_gb() -> None:
    found = plan("qwen2_5_omni_7b/sed_grpo", cards(8, 80))
    assert found.problems == []
    assert [(load.use.ranks, load.use.workers) for load in found.cards] == [(1, 0)] * 4 + [(0, 1)] * 4
    assert (found.sync_mode, found.sync_bytes, found.transport) == ("adapters", 4 * 20_185_088, "nccl")
    (problem,) = plan("qwen2_5_omni_7b/sed_grpo", cards(8, 24)).problems
    assert "a worker needs at least" in problem and "rollout.gpu_memory_fraction=0.85 leaves it 20.1 of 23.6" in problem
    on_one = plan("qwen2_5_omni_7b/sed_grpo", cards(8, 80), *ALL, "learner.gpus=0")
    (problem,) = on_one.problems
    assert problem.startswith("node card 0 has 79.1 GiB, but 4 learner rank(s) of ")


def test_what_a_sync_sends() -> None:
    """Adapters in float32; of bfloat16 weights what has changed, for which a rank keeps them as they were sent."""
    deltas = plan("qwen2_5_omni_7b/sed_grpo", cards(8, 80), *ALL)
    assert (deltas.sync_mode, deltas.sync_bytes) == ("delta", round(6 * 0.02 * SEVEN_B))
    assert deltas.rank.parts["weights as last sent"] == 2 * SEVEN_B / 4
    assert deltas.sft is not None and "weights as last sent" not in deltas.sft.parts
    dense = plan("qwen2_5_omni_7b/sed_grpo", cards(8, 80), *ALL, "sync.mode=dense")
    assert (dense.sync_mode, dense.sync_bytes) == ("dense", 2 * SEVEN_B)
    assert "weights as last sent" not in dense.rank.parts
    on_cpu = plan("qwen2_5_omni_7b/sed_grpo", Machine(1, (), None), *ALL)
    assert on_cpu.sync_mode == "dense"  # float32, of which a step changes every number


def test_measuring_noise_keeps_a_half_of_the_updates_gradients() -> None:
    plain, measured = (plan("qwen2_5_omni_7b/sed_grpo", cards(8, 80), *ALL, f"grpo.noise_every={n}") for n in (0, 10))
    assert "a half's gradients" not in plain.rank.parts
    assert measured.rank.parts["a half's gradients"] == 4 * SEVEN_B / 4  # float32, over four ranks
    assert measured.sft is not None and "a half's gradients" not in measured.sft.parts


def test_everybody_on_one_card() -> None:
    found = plan("qwen2_5_omni_3b/sed_grpo", cards(1, 80))
    assert found.problems == [] and found.transport == "gloo"  # NCCL refuses two processes on a card
    (load,) = found.cards
    assert load.needs == pytest.approx(found.rank.total / GIB + 0.45 * 79.1)
    (problem,) = plan("qwen2_5_omni_3b/sed_grpo", cards(1, 80), "rollout.gpu_memory_fraction=0.9").problems
    assert "1 learner rank(s) of" in problem and "1 worker(s) with 0.9 of it" in problem


def test_who_names_no_cards_takes_all_and_shares_them() -> None:
    assert not load("sed_grpo").cards_apart
    assert not load("sed_grpo", "rollout.gpus=0").cards_apart
    assert not load("sed_grpo", "learner.gpus='0, 1'", "rollout.gpus=1").cards_apart
    assert load("sed_grpo", "learner.gpus=0", "rollout.gpus=1").cards_apart
    assert load("qwen2_5_omni_7b/sed_grpo_two_nodes").cards_apart


def test_two_nodes_have_a_learning_and_a_generating_one() -> None:
    found = plan("qwen2_5_omni_7b/sed_grpo_two_nodes", cards(8, 80, nodes=2))
    assert (found.roles.ranks, found.roles.workers) == (8, 8)
    uses = [(load.use.node, load.use.ranks, load.use.workers) for load in found.cards]
    assert uses == [("learning node", 1, 0)] * 8 + [("generating node", 0, 1)] * 8
    assert found.problems_of("generating node") == []


def test_cards_that_are_not_there() -> None:
    problems = plan("qwen2_5_omni_7b/sed_grpo", cards(4, 141)).problems
    assert problems[0] == "rollout.gpus names 4, 5, 6, 7, but a node has cards 0 to 3"


def test_without_grpo_the_worker_comes_after_the_learner() -> None:
    words = ["grpo.enabled=false", "rollout.gpu_memory_fraction=0.9"]
    assert plan("qwen2_5_omni_3b/sed_grpo", cards(1, 80), *words).problems == []
    on_cpu = plan("qwen2_5_omni_3b/sed_grpo", Machine(1, (), None), *words)
    rank, worker = (on_cpu.rank.host + on_cpu.rank.total + on_cpu.rank.written) / GIB, on_cpu.worker.total / GIB
    assert on_cpu.host_gib == {"node": pytest.approx(0.5 + max(rank, worker))}


def test_arithmetic_of_a_row() -> None:
    """6 FLOP a weight and token for all weights, 4 for adapters, and 2 more where layers are computed twice."""
    flop = {}
    for name, words in (("adapters", []), ("all", ALL)):
        for twice in (False, True):
            config = load("qwen2_5_omni_7b/sed_grpo", *words, f"grpo.batch.gradient_checkpointing={str(twice).lower()}")
            architecture = architecture_of(config.model)
            tokens = tokens_of(config, architecture, seconds=10.0)
            a_token = train_flop(config, architecture, tokens) / tokens.row(4)
            flop[name, twice] = a_token / (architecture.decoder.layers * architecture.decoder.layer_parameters)
    assert flop["adapters", False] == pytest.approx(4, rel=0.08)  # attention and head on top
    assert flop["all", False] == pytest.approx(6, rel=0.08)
    assert flop["adapters", True] == pytest.approx(6, rel=0.08)
    assert flop["all", True] == pytest.approx(8, rel=0.08)


def test_durations_and_answers_come_from_the_manifest(tmp_path: Path) -> None:
    clips = []
    for name, seconds in (("a", 4), ("b", 8)):
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(16000 * seconds), 16000)
        events = (ManifestEvent(0.4, 0.8, "dog"), ManifestEvent(1.0, 2.0, "cat"))
        clips.append(Clip(name, tmp_path / f"{name}.wav", float(seconds), events))
    write_manifest(tmp_path / "rl.jsonl", clips)
    config = load("qwen2_5_omni_7b/sed_grpo", f"data.rl={tmp_path / 'rl.jsonl'}")
    tokens = tokens_of(config, architecture_of(config.model))
    assert (tokens.clips, tokens.seconds, tokens.longest_s) == (2, 6.0, 8.0)
    assert tokens.prompt == 300 + tokens.question and tokens.longest_prompt == 400 + tokens.question
    assert tokens.answer == 1 + 2 * (11 + 1 + 2)  # two events: times in digits, a label, what stands between
    frames = rank_memory("GRPO", config, architecture_of(config.model), tokens, 1, gpu=True).parts["encoded frames"]
    assert frames == 2 * 6 * 25 * 3584 * 2
    assert "2 clips of" in tokens.known
    asked = tokens_of(config, architecture_of(config.model), seconds=30.0)
    assert asked.longest_prompt == 1500 + asked.question


def test_the_machine_that_is_planned_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "on_gpu", lambda: False)
    monkeypatch.delenv("NNODES", raising=False)
    paper = load("qwen2_5_omni_7b/sed_grpo_two_nodes")
    assumed = machine_of(paper)
    assert (assumed.nodes, len(assumed.cards), assumed.assumed) == (2, 8, True)
    assert machine_of(load("sed_grpo")).cards == ()  # names no cards: a CPU
    assert machine_of(load("sed_grpo"), cards=2, gb=40).cards == (39.4, 39.4)
    monkeypatch.setattr(machine, "on_gpu", lambda: True)
    monkeypatch.setattr(machine, "gpu_memory_gib", lambda: (79.6, 79.6))
    found = machine_of(paper)
    assert found.cards == (79.6, 79.6) and found.kind is not None and found.kind.name == "H100 80 GB"


@pytest.fixture
def without_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (doctor, machine):
        monkeypatch.setattr(module, "on_gpu", lambda: False)
    monkeypatch.delenv("TIMEPRO_DEVICE", raising=False)


def found(config: ExperimentConfig) -> dict[str, tuple[str, str]]:
    """State and text of the doctor's two findings."""
    return {"GPUs": _cards(config, Node()), "memory": _memory(config, Node())}


def test_the_doctor_finds_a_published_checkpoint_too_large_for_this_machine(
    tmp_path: Path, without_cards: None
) -> None:
    config = load("qwen2_5_omni_7b/sed_grpo", f"runs={tmp_path / 'runs'}")
    findings = found(config)
    assert findings["GPUs"][0] == "fail"
    assert "none, but learner.gpus=0,1,2,3 and rollout.gpus=4,5,6,7" in findings["GPUs"][1]
    config.learner.gpus = config.rollout.gpus = ""
    findings = found(config)
    assert findings["GPUs"][0] == "ok"
    state, said = findings["memory"]
    assert state == "fail" and "8,937.3 million parameters" in said and "GiB of main memory, but its processes" in said


def test_the_doctor_lets_the_embedded_model_through_and_a_huge_one_not(tmp_path: Path, without_cards: None) -> None:
    config = load("sed_grpo", f"runs={tmp_path / 'runs'}")
    assert found(config)["memory"][0] in ("ok", "note")
    config.model.tiny.from_scratch = True
    config.model.tiny.hidden_size, config.model.tiny.layers = 16384, 200
    assert found(config)["memory"][0] == "fail"


def test_a_plan_is_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    from timepro.cli import main

    assert main(["plan", "qwen2_5_omni_7b/sed_grpo", "--cards", "8", "--gb", "80", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["problems"] == [] and said["changes"] == []
    assert said["rank"]["total"] == pytest.approx(sum(said["rank"]["parts"].values()))
    assert main(["plan", "qwen2_5_omni_7b/sed_grpo", "lora.rank=0", "lora.continue=false", "--gb", "40"]) == 1
    text = capsys.readouterr().out
    assert "DOES NOT FIT" in text and "nearest settings that fit: zero.offload_optimiser=true" in text
    assert main(["plan", "grpo.groups.group_size=4"]) == 0  # the default experiment
    assert "with its 4 answers" in capsys.readouterr().out
    assert main(["plan", "sed_grpo", "--gb", "-1"]) == 2
