"""Settings of the shipped experiments: text as it is typed, keys of older versions, cases from public reports."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from timepro.cli import main
from timepro.config import load_experiment
from trainer.settings.experiment import ExperimentConfig

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENTS = ROOT / "experiments"
CASES = ROOT.parent / "shared" / "cases"

# What an experiment could set before `trainer:` became `grpo:`, where the name is another one now.
_OPTIMISER = (
    "learning_rate beta1 beta2 weight_decay max_grad_norm warmup_steps flat floor max_refused_steps"
)  # fmt: skip
MOVED = {
    **{f"trainer.{key}": f"grpo.optimiser.{key}" for key in _OPTIMISER.split()},
    **{f"sft.{key}": f"sft.optimiser.{key}" for key in _OPTIMISER.split()},
    **{f"trainer.{key}": f"grpo.groups.{key}" for key in (
        "prompts_per_step", "group_size", "temperature", "max_tokens", "flat_groups", "resample_rounds")},
    **{f"trainer.{key}": f"grpo.{key}" for key in (
        "enabled", "max_steps", "reference_weight", "mask_truncated", "minibatches", "validate_every", "keep_best",
        "ahead", "objective.aggregation", "objective.mismatch.mode", "kl.coefficient", "batch.micro_batch_tokens")},
    **{f"trainer.advantage_{key}": f"grpo.advantage.{key}" for key in ("parts", "baseline", "scale")},
    **{f"{old}.{key}": f"{new}.checkpoints.{now}" for old, new in (("trainer", "grpo"), ("sft", "sft"))
       for key, now in (("save_every", "save_every"), ("keep_checkpoints", "keep"), ("on_save_failure", "on_failure"))},
}  # fmt: skip


@pytest.mark.parametrize(("old", "new"), MOVED.items())
def test_a_key_of_an_older_version_says_what_it_is_called_now(old: str, new: str) -> None:
    with pytest.raises(ValueError) as error:
        load_experiment("sed_grpo", [f"{old}=1"], ExperimentConfig, EXPERIMENTS)
    assert re.search(rf"it is called {re.escape(new)} now|did you mean {re.escape(new)}( or|\?)", str(error.value)), (
        error.value
    )


def test_an_experiment_of_an_older_version_is_told_line_and_keys(tmp_path: Path) -> None:
    path = tmp_path / "old.yaml"
    path.write_text("base: sed_grpo\nseed: 1\ntrainer:\n  max_steps: 3\n  keep_checkpoints: 1\n")
    with pytest.raises(ValueError) as error:
        load_experiment(str(path), [], ExperimentConfig, EXPERIMENTS)
    assert str(error.value) == (
        f"{path}:3: unknown key trainer: it is called grpo now; trainer.max_steps is grpo.max_steps now; "
        "trainer.keep_checkpoints is grpo.checkpoints.keep now"
    )


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("grpo.objective.mismatch.mode=off", "off"), ("name=7e12345", "7e12345"), ("name=007", "007"),
        ("name=run #2", "run #2"), ("name=12:30:45", "12:30:45"), ("wandb.group=3.10", "3.10"),
        ("wandb.tags=yes", "yes"), ("data.sft=/d/ok #1.jsonl", "/d/ok #1.jsonl"), 
        ("data.sft='/d/ok #1.jsonl'", "/d/ok #1.jsonl"),
        ("grpo.max_steps=010", 10), ("model.path=1e5", "1e5"), ("learner.gpus=0,1", "0,1"), ("rollout.gpus=0", "0"),
    ],
)  # fmt: skip
def test_a_setting_keeps_what_was_typed_on_the_command_line_and_in_a_file(tmp_path: Path, typed, expected) -> None:
    key, _, text = typed.partition("=")
    config = load_experiment("sed_grpo", [typed], ExperimentConfig, EXPERIMENTS)
    written = f'"{text}"' if "#" in text and "'" not in text else text  # in a file ` #` begins a comment
    lines = [f"{'  ' * depth}{part}:" for depth, part in enumerate(key.split("."))]
    (tmp_path / "x.yaml").write_text("\n".join(lines) + f" {written}\n")
    written = load_experiment(str(tmp_path / "x.yaml"), [], ExperimentConfig, EXPERIMENTS)
    for found in (config, written):
        for part in key.split("."):
            found = getattr(found, part)
        assert found == expected and type(found) is type(expected)


@pytest.fixture
def case(request: pytest.FixtureRequest) -> str:
    """The commands of a report, with the present names of keys."""
    path = CASES / request.param / "run.sh"
    if not path.is_file():
        pytest.skip(f"the cases from public reports are not at {CASES}")
    return path.read_text().replace("trainer.", "grpo.")


@pytest.mark.parametrize("case", ["yaml_off"], indirect=True)
def test_the_reported_word_off_is_a_mode(case: str, capsys) -> None:
    commands = re.findall(r"tp (train [^|;]+)", case)
    assert len(commands) == 2
    loaded = load_experiment("sed_grpo", [shlex.split(commands[0])[2]], ExperimentConfig, EXPERIMENTS)
    assert loaded.grpo.objective.mismatch.mode == "off"
    words = [word for word in shlex.split(commands[0]) if word != "--dry-run"]
    assert main([*words, "--dry-run"]) == 0
    assert "mode: 'off'" in capsys.readouterr().out
    words = shlex.split(commands[1])  # its manifests are the user's to make; all else is read and checked before them
    assert main(words) == 2
    assert "mismatch" not in capsys.readouterr().err


@pytest.mark.parametrize("case", ["yaml_strings"], indirect=True)
def test_the_reported_texts_stay_as_they_are(case: str) -> None:
    typed = shlex.split(re.search(r"for o in (.*?); do", case)[1])
    assert len(typed) == 6
    for word in typed:
        config = load_experiment("sed_grpo", [word], ExperimentConfig, EXPERIMENTS)
        key, _, text = word.partition("=")
        found = {"name": config.name, "wandb.group": config.wandb.group, "grpo.max_steps": config.grpo.max_steps}[key]
        assert found == (10 if key == "grpo.max_steps" else text)
