"""Every shipped experiment loads, and every setting is read by some code."""

from __future__ import annotations

import dataclasses
import re
import typing
from pathlib import Path

import pytest

from timepro.config import list_experiments, load_experiment
from trainer.experiment import ExperimentConfig
from trainer.run import check

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENTS = ROOT / "experiments"


@pytest.mark.parametrize("name", list_experiments(EXPERIMENTS))
def test_shipped_experiment_loads_and_passes_its_check(name: str) -> None:
    config = load_experiment(name, [], ExperimentConfig, EXPERIMENTS)
    assert config.name == name.replace("/", "-")
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
        ("learner.ranks=0", "learner.ranks"),
        ("trainer.prompts_per_step=1", "trainer.prompts_per_step"),
        ("trainer.group_size=1", "trainer.group_size"),
        ("trainer.flat_groups=keep", "trainer.flat_groups"),
        ("evaluation.examples=0", "evaluation.examples"),
        ("control.enabled=true sft.enabled=false", "sft.enabled"),
        ("data.test=x.jsonl", "data.sft"),
        ("model.path=/nowhere", "/nowhere"),
        ("rewards=nothing", "nothing"),
    ]:
        config = load_experiment("sed_grpo", override.split(), ExperimentConfig, EXPERIMENTS)
        with pytest.raises(ValueError, match=re.escape(key)):
            check(config)
