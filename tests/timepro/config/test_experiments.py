"""Experiments: bases, overrides, and errors that name the key."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from timepro.config import list_experiments, load_experiment, load_resolved, save_resolved


@dataclass
class Optimiser:
    learning_rate: float = 1e-3
    warmup_steps: int = 10


@dataclass
class Trainer:
    max_steps: int = 100
    learning_rate: float = 1e-4
    resume: bool = False
    optimiser: Optimiser = field(default_factory=Optimiser)


@dataclass
class Experiment:
    name: str = ""
    comment: str = ""
    trainer: Trainer = field(default_factory=Trainer)
    rewards: dict[str, Any] = field(default_factory=dict)
    tasks: list[str] = field(default_factory=lambda: ["sed"])


@pytest.fixture
def load(tmp_path):
    def _load(files, *overrides, name="main"):
        for path, text in files.items():
            target = tmp_path / f"{path}.yaml"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        return load_experiment(name, overrides, Experiment, tmp_path)

    return _load


def test_an_empty_file_is_the_defaults_and_its_own_name(load):
    assert load({"main": ""}) == Experiment(name="main")


def test_a_nested_name_has_no_slash_and_a_given_name_wins(load):
    assert load({"a/b": ""}, name="a/b").name == "a-b"
    assert load({"main": "name: mine"}).name == "mine"


def test_bases_are_merged_in_order_and_the_file_wins(load):
    files = {
        "base/root": "comment: root\ntrainer: {max_steps: 1, learning_rate: 0.5}",
        "base/one": "base: base/root\ntrainer: {max_steps: 2}",
        "base/two": "trainer: {max_steps: 3, resume: true}",
        "main": "base: [base/one, base/two]\ntrainer: {optimiser: {warmup_steps: 4}}",
    }
    trainer = Trainer(max_steps=3, learning_rate=0.5, resume=True, optimiser=Optimiser(warmup_steps=4))
    assert load(files) == Experiment(name="main", comment="root", trainer=trainer)


def test_lists_are_replaced_whole(load):
    assert load({"base/a": "tasks: [sed, ag]", "main": "base: base/a\ntasks: [dac]"}).tasks == ["dac"]


def test_a_base_used_twice_is_no_circle(load):
    files = {"r": "comment: r", "a": "base: r", "b": "base: r", "main": "base: [a, b]"}
    assert load(files).comment == "r"


def test_circular_bases_are_named(load):
    with pytest.raises(ValueError, match=r"bases form a circle: .*main\.yaml -> .*other\.yaml -> .*main\.yaml"):
        load({"main": "base: other", "other": "base: main"})


def test_a_missing_base_names_both_files(load):
    with pytest.raises(ValueError, match=r"main\.yaml: its base nothing does not exist; looked for .*nothing\.yaml"):
        load({"main": "base: nothing"})


@pytest.mark.parametrize("base", ["{a: 1}", "[[a]]", "[a, {b: 1}]"])
def test_a_base_that_is_not_a_name_is_refused(load, base):
    with pytest.raises(ValueError, match=r"main\.yaml:1: key base.*: a (list|mapping) is not a text"):
        load({"main": f"base: {base}"})


@pytest.mark.parametrize("text", ["1e-5", "1E-5", "1.0e-5", "0.00001", "+1e-05"])
def test_scientific_notation_is_a_number_in_overrides_and_files(load, text):
    for value in (
        load({"main": ""}, f"trainer.learning_rate={text}").trainer.learning_rate,
        load({"main": f"trainer: {{learning_rate: {text}}}"}).trainer.learning_rate,
    ):
        assert isinstance(value, float)
        assert value == 1e-5


def test_scientific_notation_is_a_number_without_a_declared_type(load):
    loaded = load({"main": ""}, "rewards.epsilon=1e-5")
    assert loaded.rewards == {"epsilon": 1e-5}


def test_a_word_that_looks_scientific_stays_a_word_where_text_is_declared(load):
    assert load({"main": ""}, "comment=1e5").comment == "1e5"
    assert load({"main": "comment: 1e5"}).comment == "1e5"


def test_overrides_win_in_order_and_keep_their_neighbours(load):
    files = {"main": "trainer: {max_steps: 7, learning_rate: 0.5}"}
    loaded = load(files, "trainer.max_steps=8", "trainer.max_steps=9", "trainer.resume=true", "comment=a=b")
    assert loaded.trainer == Trainer(max_steps=9, learning_rate=0.5, resume=True)
    assert loaded.comment == "a=b"


def test_overrides_take_yaml_values(load):
    loaded = load({"main": ""}, "tasks=[ag, dac]", "trainer={max_steps: 3}", "comment=")
    assert loaded.tasks == ["ag", "dac"]
    assert loaded.trainer == Trainer(max_steps=3)
    assert loaded.comment == ""


@pytest.mark.parametrize("override", ["trainer.max_steps", "=3", " =3"])
def test_a_malformed_override_shows_the_form(load, override):
    with pytest.raises(ValueError, match="is not of the form key=value"):
        load({"main": ""}, override)


def test_an_override_that_is_no_yaml_is_quoted(load):
    with pytest.raises(ValueError, match=r"override 'tasks=\[ag': key tasks: not valid YAML"):
        load({"main": ""}, "tasks=[ag")


def test_a_dollar_sign_is_a_character(load):
    assert load({"main": ""}, "comment=${").comment == "${"
    assert load({"main": "comment: ${nothing.here}"}).comment == "${nothing.here}"


@pytest.mark.parametrize("text", ["\\${x}", "\\\\${x}", "a${b}\\", "${${x}}", "\\", "${oc.env:HOME}", "a\\$${c}"])
def test_no_text_is_taken_for_a_reference(load, tmp_path, text):
    loaded = load({"main": ""}, f"comment={text}", f"rewards.name={text}")
    assert (loaded.comment, loaded.rewards) == (text, {"name": text})
    save_resolved(loaded, tmp_path / "config.yaml")
    assert load_resolved(tmp_path / "config.yaml", type(loaded)) == loaded


def test_an_unknown_key_names_its_place_and_near_keys(load):
    with pytest.raises(
        ValueError, match=r"main\.yaml:1: unknown key trainer\.max_step \(did you mean trainer\.max_ste"
    ):
        load({"main": "trainer: {max_step: 3}"})
    with pytest.raises(ValueError, match="override 'trainer.optimiser.learning_rat=1': unknown key") as error:
        load({"main": ""}, "trainer.optimiser.learning_rat=1")
    assert "did you mean trainer.optimiser.learning_rate" in str(error.value)
    assert "keys here: trainer.optimiser.learning_rate, trainer.optimiser.warmup_steps" in str(error.value)


def test_a_key_far_from_all_others_still_lists_them(load):
    with pytest.raises(ValueError, match="unknown key zzz; keys here: comment, name, rewards, tasks, trainer"):
        load({"main": "zzz: 1"})


@pytest.mark.parametrize("text", ["1: x", "true: x"])
def test_a_key_that_is_not_text_is_an_unknown_key(load, text):
    with pytest.raises(ValueError, match="unknown key"):
        load({"main": text})


def test_an_unknown_key_of_a_base_is_refused(load):
    with pytest.raises(ValueError, match=r"unknown key trainer\.lr \(did you mean trainer\.learning_rate"):
        load({"base/a": "trainer: {lr: 1}", "main": "base: base/a"})


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("trainer.max_steps=many", "trainer.max_steps"),
        ("trainer.max_steps=1.5", "trainer.max_steps"),
        ("trainer.optimiser.learning_rate=fast", "trainer.optimiser.learning_rate"),
        ("trainer.resume=perhaps", "trainer.resume"),
        ("trainer=5", "trainer"),
        ("tasks=5", "tasks"),
    ],
)
def test_a_value_of_the_wrong_type_names_the_key(load, override, key):
    with pytest.raises(ValueError, match=rf"key {key}: "):
        load({"main": ""}, override)


def test_a_wrong_value_in_the_file_names_file_and_key(load):
    with pytest.raises(ValueError, match=r"main\.yaml:2: key trainer\.max_steps: 'many' is not a whole"):
        load({"main": "# a comment\ntrainer: {max_steps: many}"})


def test_an_experiment_must_be_a_mapping_of_valid_yaml(load):
    with pytest.raises(ValueError, match=r"main\.yaml: an experiment is a mapping of keys, not a list"):
        load({"main": "- a"})
    with pytest.raises(ValueError, match=r"main\.yaml"):
        load({"main": "5"})
    with pytest.raises(ValueError, match=r"main\.yaml: not valid YAML"):
        load({"main": "a: [1"})


def test_an_unknown_experiment_lists_near_and_all_names(load, tmp_path):
    files = {"detect": "", "deep/ground": "", "base/x": "", "sweeps/y": "", "benchmarks/z": ""}
    with pytest.raises(ValueError, match=r"no experiment 'detct' \(did you mean detect\?\)") as error:
        load(files, name="detct")
    assert str(error.value).endswith("experiments: deep/ground, detect")
    assert list_experiments(tmp_path) == ["deep/ground", "detect"]


def test_a_resolved_configuration_survives_a_trip_through_its_file(load, tmp_path):
    files = {"main": "rewards: {kind: weighted, parts: [{kind: miou, weight: 0.5}]}\ntasks: [ag]"}
    loaded = load(files, "trainer.optimiser.learning_rate=3e-7", "comment='yes: no'")
    path = tmp_path / "resolved.yaml"
    save_resolved(loaded, path)
    assert load_resolved(path, Experiment) == loaded
    assert [p.name for p in tmp_path.glob("resolved*")] == ["resolved.yaml"]


# ---------------------------------------------------------------- by path


@pytest.fixture
def built_in(tmp_path):
    """A folder of experiments, and a place elsewhere for the user's own."""
    folder, elsewhere = tmp_path / "checkout" / "experiments", tmp_path / "elsewhere"
    (folder / "deep").mkdir(parents=True)
    elsewhere.mkdir()
    (folder / "main.yaml").write_text("comment: built-in")
    (folder / "deep" / "one.yaml").write_text("comment: deep")
    return folder, elsewhere


def test_an_experiment_may_be_a_file_anywhere_with_built_in_bases(built_in):
    folder, elsewhere = built_in
    (elsewhere / "mine.yaml").write_text("base: main\ntrainer: {max_steps: 3}")
    loaded = load_experiment(str(elsewhere / "mine.yaml"), [], Experiment, folder)
    assert (loaded.name, loaded.comment, loaded.trainer.max_steps) == ("mine", "built-in", 3)


def test_a_base_beside_the_file_goes_before_a_built_in_one(built_in):
    folder, elsewhere = built_in
    (elsewhere / "mine.yaml").write_text("base: [main, parts/two.yaml]")
    (elsewhere / "main.yaml").write_text("comment: own\nbase: main")  # itself built on the built-in one of its name
    (elsewhere / "parts").mkdir()
    (elsewhere / "parts" / "two.yaml").write_text("base: three\ntrainer: {max_steps: 5}")
    (elsewhere / "parts" / "three.yaml").write_text("trainer: {learning_rate: 0.5}")
    loaded = load_experiment(str(elsewhere / "mine.yaml"), [], Experiment, folder)
    assert (loaded.comment, loaded.trainer.max_steps, loaded.trainer.learning_rate) == ("own", 5, 0.5)


def test_the_path_of_a_built_in_experiment_is_the_experiment(built_in):
    folder, _ = built_in
    by_path = load_experiment(str(folder / "deep" / "one.yaml"), [], Experiment, folder)
    assert by_path == load_experiment("deep/one", [], Experiment, folder)


def test_several_folders_are_looked_through_in_order(built_in):
    folder, elsewhere = built_in
    (elsewhere / "main.yaml").write_text("comment: own")
    (elsewhere / "other.yaml").write_text("base: deep/one")
    folders = [elsewhere, folder]
    assert load_experiment("main", [], Experiment, folders).comment == "own"
    assert load_experiment("other", [], Experiment, folders).comment == "deep"
    with pytest.raises(ValueError, match="experiments: deep/one, main, other"):
        load_experiment("nothing_like_it", [], Experiment, folders)


def test_a_missing_file_is_named_as_one(built_in):
    with pytest.raises(ValueError, match=r"there is no file /nowhere/mine\.yaml"):
        load_experiment("/nowhere/mine.yaml", [], Experiment, built_in[0])
