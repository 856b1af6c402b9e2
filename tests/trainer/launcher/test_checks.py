"""Every shipped experiment loads, and every setting is read by some code."""

from __future__ import annotations

import dataclasses
import math
import re
import typing
from pathlib import Path

import numpy as np
import pytest
import soundfile

from timepro.config import Limits, leaves, list_experiments, load_experiment
from timepro.config.marks import bare, mark
from timepro.data.clips import Clip, ManifestEvent, Query
from timepro.data.manifest import write_manifest
from trainer.launcher.checks import check, describe
from trainer.settings.experiment import ExperimentConfig

ROOT = Path(__file__).resolve().parents[3]
EXPERIMENTS = ROOT / "experiments"


@pytest.mark.parametrize("name", list_experiments(EXPERIMENTS))
def test_shipped_experiment_loads_and_passes_its_check(name: str, tiny_checkpoint: Path, manifest: Path) -> None:
    config = load_experiment(name, [], ExperimentConfig, EXPERIMENTS)
    assert config.name == name.replace("/", "-")
    if config.model.path:  # made by the user, as the experiment's first lines say
        assert re.search(rf"timepro init-model \S+ {config.model.path}( --.*)?\n", text_of(name))
        config.model.path = str(tiny_checkpoint)
        config.data.soundbank = ""
        for split in ("sft", "rl", "validation", "test"):
            setattr(config.data, split, str(manifest))
    check(config, n_nodes=1 + config.nodes.generating)


def text_of(name: str) -> str:
    """An experiment's file; those for other machines are prepared as the first."""
    return (EXPERIMENTS / f"{re.sub('_(two_nodes|two_gpus|eight_gpus)$', '', name)}.yaml").read_text()


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One clip with everything that a task can ask for."""
    folder = tmp_path_factory.mktemp("data")
    soundfile.write(folder / "a.wav", np.zeros(32000), 16000)
    event = ManifestEvent(0.4, 0.8, "dog_bark", "a dog barks")
    clip = Clip("a", folder / "a.wav", 2.0, (event,), (Query("a dog", ((0.4, 0.8),)),))
    write_manifest(folder / "clips.jsonl", [clip])
    return folder / "clips.jsonl"


def test_a_sound_bank_is_looked_at_in_the_first_second(tmp_path: Path) -> None:
    bank = tmp_path / "bank"
    config = load_experiment("sed_sft", [f"data.soundbank={bank}"], ExperimentConfig, EXPERIMENTS)
    with pytest.raises(ValueError, match=r"data.soundbank: .*bank: no such folder"):
        check(config)
    for label, count in (("bell", 3), ("door", 2)):
        (bank / label).mkdir(parents=True)
        for number in range(count):
            (bank / label / f"{number}.wav").write_bytes(b"x")
    with pytest.raises(ValueError, match="door/: 2 of the 3 sources"):
        check(config)
    config.data.bank.classes = ["bell"]
    check(config)
    config.data.bank.test_share = 0.9
    with pytest.raises(ValueError, match="data.bank.test_share"):
        check(config)
    config.data.bank.test_share = 0.2
    for split in ("sft", "rl", "validation", "test"):
        setattr(config.data, split, "a.jsonl")
    with pytest.raises(ValueError, match=r"data.soundbank is set, and data.sft too"):
        check(config)


def test_every_base_is_used() -> None:
    text = "".join(path.read_text() for path in EXPERIMENTS.rglob("*.yaml"))
    for base in (EXPERIMENTS / "base").glob("*.yaml"):
        assert re.search(rf"base: .*base/{base.stem}\b", text), f"{base} is nobody's base"


def settings(schema: type) -> set[str]:
    hints = typing.get_type_hints(schema)
    names = set()
    for field in dataclasses.fields(schema):
        names.add(field.name)
        if dataclasses.is_dataclass(hints[field.name]):
            names |= settings(typing.cast(type, hints[field.name]))
    return names


def test_no_setting_is_dead() -> None:
    """Each key is read as an attribute somewhere outside its own declaration."""
    code = "\n".join(p.read_text() for room in ("timepro", "rollout", "trainer") for p in (ROOT / room).rglob("*.py"))
    # `self.x` does not count: a dataclass's own methods are no proof of a reader... but its users are.
    dead = {name for name in settings(ExperimentConfig) if not re.search(rf"\.{name}\b", code)}
    # `data.sft`, `data.rl`, ... are read by name in a loop over the splits.
    assert dead <= {"rl", "validation", "sft_clips", "rl_clips", "validation_clips", "test_clips"}


def test_check_names_the_key_that_is_wrong() -> None:
    for override, key in [
        ("task=asr", "task"),
        ("grpo.groups.prompts_per_step=1", "grpo.groups.prompts_per_step"),
        ("lora.continue=true", "lora.continue=true goes on with the adapter of SFT, but lora.rank=0"),
        (
            "lora.continue=true lora.rank=8 sft.encoder_warmup.steps=9",
            "set sft.encoder_warmup.steps=0, or lora.continue=false",
        ),
        (f"lora.continue=true lora.rank=8 sft.enabled=false model.path={Path(__file__).parent}", "holds none"),
        ("grpo.ahead=1 grpo.groups.flat_groups=resample", "do not go together"),
        ("grpo.minibatches=25", "grpo.minibatches is 25; it must be 1 to grpo.groups.prompts_per_step (24)"),
        ("rollout.min_workers=3 rollout.workers=2", "rollout.min_workers is 3; there are only 2"),
        ("name=../../x", "name='../../x' cannot name a run's folder: it leads out"),
        ("grpo.objective.mismatch.mode=cut", "mismatch.mode is 'cut'"),
        ("grpo.groups.flat_groups=keep", "grpo.groups.flat_groups"),
        ("grpo.advantage.scale=std", "grpo.advantage.scale"),
        ("grpo.advantage.parts.miuo=1", "grpo.advantage.parts names miuo; the configured reward records"),
        ("grpo.objective.name=ppo", "grpo.objective.name"),
        ("grpo.kl.estimator=k9", "grpo.kl.estimator"),
        ("rollout.gpus=0,1,2 rollout.workers=2", "rollout.gpus"),
        ("control.clips=sft sft.enabled=false", "sft.enabled"),
        ("grpo.enabled=false", "set control.enabled=false"),
        ("control.clips=test", "control.clips is 'test'; it must be sft or rl"),
        ("model.tiny.layers=3", "model.tiny.layers=3: the shipped small base is what it is"),
        ("model.tiny.family=toy", "'toy', of which no small base is shipped"),
        ("sft.keep_best=true", "sft.keep_best needs sft.validate_every"),
        ("grpo.noise_every=5 zero.offload_optimiser=true", "grpo.noise_every reads half an update's gradient"),
        (
            "grpo.noise_every=5 zero.extra.zero_optimization.offload_optimizer.device=cpu",
            "take zero.extra.zero_optimization.offload_optimizer back",
        ),
        ("data.test=x.jsonl", "data.sft"),
        ("model.path=/nowhere", "/nowhere"),
        ("rewards=nothing", "nothing"),
    ]:
        config = load_experiment("sed_grpo", override.split(), ExperimentConfig, EXPERIMENTS)
        with pytest.raises(ValueError, match=re.escape(key)):
            check(config)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("grpo.groups.order=nomod:X", "grpo.groups.order: cannot import module 'nomod' of order 'nomod:X'"),
        ("grpo.groups.order=trainer.learner.order:X", "module 'trainer.learner.order' has no 'X'"),
        ("grpo.objective.name=nomod:f", "grpo.objective.name: cannot import module 'nomod'"),
        ("sync.transport=ngloo", "sync.transport is 'ngloo'; it must be auto, gloo or nccl"),
        ("sync.mode=some", "sync.mode is 'some'; it must be one of auto, dense, delta, adapters"),
        ("sync.mode=adapters", "sync.mode=adapters, but lora.rank=0 trains all weights"),
        (
            "sync.mode=dense lora.rank=8",
            "sync.mode=dense sends whole weights, which the workers of a run with lora.rank",
        ),
        ("sync.mode=delta rollout.dtype=bfloat16 zero.dtype=float32", "set both alike, or sync.mode=auto"),
        ("sync.mode=delta rollout.tensor_parallel=2", "sync.mode=delta needs workers of one process"),
        ("sft.label_times=foo", "sft.label_times is 'foo'; it must be auto, exact or annotated"),
        ("zero.dtype=fp8", "zero.dtype is 'fp8'; it must be auto, float32 or bfloat16"),
        ("rollout.dtype=fp99", "rollout.dtype is 'fp99'; it must be one of auto, float32, float16, bfloat16"),
        ("wandb.mode=onlin", "wandb.mode is 'onlin'; it must be auto, online, offline or disabled"),
        ("lora.rank=8 lora.targets=[]", "lora.targets is empty"),
    ],
)
def test_what_only_the_learner_uses_is_checked_too(override: str, said: str) -> None:
    config = load_experiment("sed_grpo", override.split(), ExperimentConfig, EXPERIMENTS)
    with pytest.raises(ValueError, match=re.escape(said)):
        check(config)


@pytest.mark.parametrize(
    ("overrides", "way"),
    [
        ([], False), (["zero.dtype=bfloat16"], True), (["zero.dtype=bfloat16", "sync.mode=dense"], False),
        (["sync.mode=delta"], True), (["lora.rank=8", "zero.dtype=bfloat16"], False),
    ],
)  # fmt: skip
def test_workers_keep_weights_for_deltas_where_deltas_may_come(overrides: list[str], way: bool) -> None:
    config = load_experiment("sed_grpo", overrides, ExperimentConfig, EXPERIMENTS)
    check(config)
    assert config.sends_deltas is way


def test_an_order_of_ones_own_passes_the_check() -> None:
    override = "grpo.groups.order=trainer.learner.order:Mixture"
    check(load_experiment("sed_grpo", [override], ExperimentConfig, EXPERIMENTS))


def test_a_task_without_a_reward_is_refused_before_anything_starts() -> None:
    overrides = ["task={sed: 1, ag: 1}", "rewards={name: by_task, ag: miou}"]
    config = load_experiment("sed_grpo", overrides, ExperimentConfig, EXPERIMENTS)
    with pytest.raises(ValueError, match="no reward is named for task 'sed'; add the key 'sed' to by_task"):
        check(config)


def test_samples_that_the_model_cannot_take_are_refused_before_anything_starts(tmp_path: Path, manifest: Path) -> None:
    soundfile.write(tmp_path / "long.wav", np.zeros(16000 * 31), 16000)
    clips = [Clip("long", tmp_path / "long.wav", 31.0, (ManifestEvent(0.4, 0.8, "dog_bark", "a; b"),))]
    write_manifest(tmp_path / "long.jsonl", clips)
    for split in ("sft", "validation"):  # in whichever it is
        overrides = [f"data.{name}={manifest}" for name in ("sft", "rl", "validation", "test") if name != split]
        overrides.append(f"data.{split}={tmp_path / 'long.jsonl'}")
        config = load_experiment("sed_grpo", overrides, ExperimentConfig, EXPERIMENTS)
        with pytest.raises(ValueError, match=r"1 problem with the samples.*\n.*long\.jsonl:1: clip 'long': lasts 31 s"):
            check(config)


def test_soundscapes_longer_than_the_model_takes_are_refused_too() -> None:
    overrides = ["data.soundscape.max_duration=31"]
    config = load_experiment("sed_grpo", overrides, ExperimentConfig, EXPERIMENTS)
    with pytest.raises(ValueError, match="data.soundscape.max_duration: the longest clip lasts 31 s"):
        check(config)


def test_every_number_has_a_range_and_no_other_is_read() -> None:
    """So `grpo.max_steps=-3` is refused where it is read, and no later arithmetic meets it."""
    numbers = {key: kind for key, kind in leaves(ExperimentConfig).items() if bare(kind) in (int, float)}
    for key, kind in numbers.items():
        limits = mark(kind, Limits)
        assert limits is not None, f"{key} declares no range; see timepro/config/marks.py"
        step = 1 if bare(kind) is int else 0.01
        outside = [limits.low - step, limits.low] if limits.open_low else [limits.low - step]
        outside += [limits.high + step] if math.isfinite(limits.high) else []
        for value in outside:
            with pytest.raises(ValueError, match=rf"key {re.escape(key)}: .* is out of range; it must be"):
                load_experiment("sed_grpo", [f"{key}={bare(kind)(value)!r}"], ExperimentConfig, EXPERIMENTS)


def test_a_dry_run_tells_of_the_named_manifests(tmp_path: Path, manifest: Path) -> None:
    soundfile.write(tmp_path / "b.wav", np.zeros(16000 * 8), 16000)
    clip = Clip("b", tmp_path / "b.wav", 8.0, (ManifestEvent(0.4, 0.8, "Dog bark"),))
    write_manifest(tmp_path / "b.jsonl", [clip])
    named = {"sft": manifest, "rl": tmp_path / "b.jsonl", "validation": manifest, "test": tmp_path / "b.jsonl"}
    overrides = [f"data.{split}={path}" for split, path in named.items()]
    config = load_experiment("sed_grpo", overrides, ExperimentConfig, EXPERIMENTS)
    check(config)
    text = describe(config)
    assert "label times in SFT     exact" in text  # the manifest has no annotated ones
    assert "(prompt 240 of audio and" in text  # 8 s: 200 frames, a timestamp for every fifth
    assert f"label 'dog_bark' in {manifest} and 'Dog bark' in {tmp_path / 'b.jsonl'} differ in spelling alone" in text
