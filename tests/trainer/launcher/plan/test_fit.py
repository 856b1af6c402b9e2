"""Where a run does not fit, what is proposed does, and nothing in it is needless."""

from __future__ import annotations

from pathlib import Path

import pytest

from timepro.config import load_experiment
from trainer.launcher.plan.fit import as_typed, changed, nearest
from trainer.launcher.plan.layout import layout_for
from trainer.launcher.plan.machine import Machine, card_of
from trainer.launcher.plan.plan import plan_of
from trainer.settings.experiment import ExperimentConfig

EXPERIMENTS = Path(__file__).resolve().parents[4] / "experiments"
ALL = ["lora.rank=0", "lora.continue=false"]


def load(*overrides: str) -> ExperimentConfig:
    return load_experiment("qwen2_5_omni_7b/sed_grpo", overrides, ExperimentConfig, EXPERIMENTS)


def cards(count: int, gb: float, nodes: int = 1) -> Machine:
    kind = card_of(gb)
    return Machine(nodes, (kind.gib,) * count, kind)


@pytest.mark.parametrize(
    ("on", "overrides"),
    [
        (cards(1, 80), []),
        (cards(2, 24), []),
        (cards(8, 40), ALL),
        (cards(1, 80), ALL),
        (cards(8, 40), [*ALL, "grpo.batch.gradient_checkpointing=false", "sft.batch.gradient_checkpointing=false"]),
        (cards(8, 80), ["rollout.gpu_memory_fraction=0.2"]),
        (cards(4, 80), ["learner.gpus=0,1,2,3", "rollout.gpus=0,1,2,3"]),
        (cards(2, 40), [*ALL, "zero.offload_optimiser=true"]),
    ],
)
def test_what_is_proposed_fits_and_none_of_it_is_needless(on: Machine, overrides: list[str]) -> None:
    config = load(*overrides)
    assert plan_of(config, on).problems
    changes = nearest(config, on)
    assert changes
    typed = load(*overrides, *as_typed(changes))  # as a person would type it
    assert typed == changed(config, changes)
    assert plan_of(typed, on).problems == []
    for change in changes:
        without = changed(config, [other for other in changes if other != change])
        try:
            assert plan_of(without, on).problems, f"{change} is needless"
        except ValueError:
            continue  # half of a layout


def test_what_fits_is_left_alone_and_what_cannot_is_said() -> None:
    assert nearest(load(), cards(8, 80)) == []
    assert nearest(load(), cards(1, 16)) is None


@pytest.mark.parametrize(("count", "nodes"), [(1, 1), (2, 1), (3, 1), (8, 1), (8, 2), (8, 3)])
def test_a_layout_uses_the_cards_that_there_are(count: int, nodes: int) -> None:
    config = changed(load(), list(layout_for(count, nodes).items()))
    found = plan_of(config, cards(count, 141, nodes))
    assert found.problems == []
    assert all(load.use.ranks + load.use.workers == (2 if count == 1 else 1) for load in found.cards)
    assert {load.use.card for load in found.cards} == set(range(count // 2 * 2 if count > 1 and nodes == 1 else count))
