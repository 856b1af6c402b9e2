"""Parameters of a reward belong to the name they were written for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest

from timepro.config import Spec, load_experiment, spec_of


@dataclass
class Settings:
    name: str = ""
    rewards: Annotated[Any, Spec()] = "adaptive"


BASE = "rewards: {name: adaptive, main: {name: eb_f1, onset_collar: 0.1}, aux: miou, epsilon: 1e-6}"
WHOLE = {"name": "adaptive", "main": {"name": "eb_f1", "onset_collar": 0.1}, "aux": "miou", "epsilon": 1e-6}


@pytest.fixture
def rewards(tmp_path: Path):
    def _rewards(*overrides: str, own: str = "") -> Any:
        (tmp_path / "base.yaml").write_text(BASE)
        (tmp_path / "x.yaml").write_text(f"base: base\n{own}")
        return load_experiment("x", overrides, Settings, tmp_path).rewards

    return _rewards


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ("", WHOLE),
        ("rewards: miou", "miou"),
        ("rewards: {name: miou}", {"name": "miou"}),
        ("rewards: {name: weighted, terms: []}", {"name": "weighted", "terms": []}),
        ("rewards: {epsilon: 0.5}", WHOLE | {"epsilon": 0.5}),
        ("rewards: {main: iou}", WHOLE | {"main": "iou"}),
        ("rewards: {main: {offset_collar: 0.3}}", WHOLE | {"main": WHOLE["main"] | {"offset_collar": 0.3}}),
        ("rewards: {aux: {weight: 2}}", WHOLE | {"aux": {"name": "miou", "weight": 2}}),
    ],
)
def test_a_file_over_its_base(rewards, own: str, expected: Any) -> None:
    assert rewards(own=own) == expected


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["rewards=miou"], "miou"),
        (["rewards.name=miou"], {"name": "miou"}),
        (["rewards.name=adaptive"], WHOLE),
        (["rewards={name: miou, a: 1}"], {"name": "miou", "a": 1}),
        (["rewards={epsilon: 0.5}"], WHOLE | {"epsilon": 0.5}),
        (["rewards.epsilon=1e-4"], WHOLE | {"epsilon": 1e-4}),
        (["rewards.main=iou"], WHOLE | {"main": "iou"}),
        (["rewards.main.name=iou"], WHOLE | {"main": {"name": "iou"}}),
        (["rewards.main.name=eb_f1"], WHOLE),
        (["rewards.main.onset_collar=0.3"], WHOLE | {"main": {"name": "eb_f1", "onset_collar": 0.3}}),
        (["rewards.aux.as=007"], WHOLE | {"aux": {"name": "miou", "as": "007"}}),
        (["rewards.name=iou", "rewards.a=1"], {"name": "iou", "a": 1}),
        (["rewards=iou", "rewards.a=off"], {"name": "iou", "a": "off"}),
        (["rewards={name: weighted, terms: [{reward: a}]}", "rewards.terms.0.weight=2"],
         {"name": "weighted", "terms": [{"reward": "a", "weight": 2}]}),
    ],
)  # fmt: skip
def test_overrides(rewards, overrides: list[str], expected: Any) -> None:
    assert rewards(*overrides) == expected


def test_a_place_that_a_list_does_not_have(rewards) -> None:
    with pytest.raises(
        ValueError, match=r"override 'rewards.terms.1.weight=2': '1' is not one of the list's places, 0 to 0"
    ):
        rewards("rewards={name: weighted, terms: [{reward: a}]}", "rewards.terms.1.weight=2")


def test_a_spec_from_words() -> None:
    words = ["main=eb_f1", "main.onset_collar=0.1", "aux.name=007", "mode=off", "mask=null"]
    assert spec_of("adaptive", words) == {
        "name": "adaptive", "main": {"name": "eb_f1", "onset_collar": 0.1}, "aux": {"name": "007"}, "mode": "off",
        "mask": None,
    }  # fmt: skip
    for word in ("onset_collar", "=1", "a b=1", "a..b=1"):
        with pytest.raises(ValueError, match="expected key=value"):
            spec_of("eb_f1", [word])
