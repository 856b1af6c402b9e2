"""What somebody is told who writes a key that does not exist."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pytest

from timepro.config import Formerly, find_key, load_resolved, save_resolved
from timepro.config.keys import unknown_key


@dataclass
class Optimiser:
    learning_rate: float = 1e-3
    warmup_steps: int = 1


@dataclass
class Advantage:
    scale: str = "group"
    parts: dict[str, float] = field(default_factory=dict)


@dataclass
class Stage:
    max_steps: int = 1
    batch_size: int = 1
    optimiser: Optimiser = field(default_factory=Optimiser)
    advantage: Advantage = field(default_factory=Advantage)


@dataclass
class Settings:
    name: str = ""
    first: Stage = field(default_factory=Stage)
    second: Annotated[Stage, Formerly("trainer")] = field(default_factory=Stage)
    rewards: Any = None


@dataclass
class Hook:
    url: str = ""
    retries: int = 1


@dataclass
class Holder:
    hooks: list[Hook] = field(default_factory=list)
    by_name: dict[str, Hook] = field(default_factory=dict)


def said(key: str) -> str:
    with pytest.raises(ValueError) as error:
        find_key(Settings, key)
    return str(error.value)


def meant(key: str) -> list[str]:
    text = said(key)
    return text.partition("(did you mean ")[2].partition("?)")[0].split(" or ") if "did you mean" in text else []


def test_a_key_is_found_with_what_lies_inside_it() -> None:
    assert find_key(Settings, "first.max_steps") == (int, ())
    assert find_key(Settings, "first.advantage.parts.miou")[1] == ("miou",)
    assert find_key(Settings, "rewards.main.onset_collar") == (Any, ("main", "onset_collar"))


def test_near_names_by_the_last_part() -> None:
    assert meant("max_steps") == ["first.max_steps", "second.max_steps"]
    assert meant("scale") == ["first.advantage.scale", "second.advantage.scale"]
    assert meant("first.learning_rate") == ["first.optimiser.learning_rate"]
    assert meant("second.optimizer") == ["second.optimiser"]


def test_near_names_by_initials_and_typos() -> None:
    assert meant("lr") == ["first.optimiser.learning_rate", "second.optimiser.learning_rate"]
    assert meant("first.optimiser.lr") == ["first.optimiser.learning_rate"]
    assert meant("bs") == ["first.batch_size", "second.batch_size"]
    assert meant("first.max_step") == ["first.max_steps"]
    assert meant("secnd.max_steps")[0] == "second.max_steps"
    assert meant("nam") == ["name"]
    assert meant("zzz") == []


def test_a_former_name_says_the_present_one() -> None:
    assert said("trainer.max_steps") == "unknown key trainer.max_steps: it is called second.max_steps now"
    assert "it is called second.optimiser.learning_rate now" in said("trainer.learning_rate")
    assert "it is called second.advantage.scale now" in said("trainer.advantage_scale")
    assert "it is called second now" in said("trainer")
    section = unknown_key(Settings, "trainer", ("trainer.max_steps", "trainer.learning_rate"))
    assert section == (
        "unknown key trainer: it is called second now; "
        "trainer.max_steps is second.max_steps now; trainer.learning_rate is second.optimiser.learning_rate now"
    )


def test_the_keys_of_the_section_are_listed() -> None:
    assert said("first.zzz").endswith("keys here: first.advantage, first.batch_size, first.max_steps, first.optimiser")
    assert said("zzz.a").endswith("keys here: first, name, rewards, second")


def test_a_single_value_holds_no_keys() -> None:
    assert said("first.max_steps.x") == "unknown key first.max_steps.x: first.max_steps is one value, it holds no x"


def test_sections_in_lists_and_mappings_are_written_and_read_back(tmp_path: Path) -> None:
    config = Holder([Hook("a", 2)], {"x": Hook("b")})
    save_resolved(config, tmp_path / "c.yaml")
    assert load_resolved(tmp_path / "c.yaml", Holder) == config


def test_a_key_inside_a_list_or_mapping_of_sections_has_near_names_too() -> None:
    assert (
        unknown_key(Holder, "hooks.0.ur") == "in hooks.0: unknown key ur (did you mean url?); keys here: retries, url"
    )
    assert unknown_key(Holder, "by_name.a.retrys").startswith(
        "in by_name.a: unknown key retrys (did you mean retries?)"
    )
    assert unknown_key(Holder, "hook").startswith("unknown key hook (did you mean hooks?)")
