"""The experiments for few cards: each fits by the plan, and goes through a dry run without card or weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from timepro.astp import CONFIG_KEY, AstpLayout
from timepro.cli import main
from timepro.config import load_experiment
from timepro.data.soundscape import SoundscapeConfig
from timepro.data.synth import write_split
from timepro.families.published import published_named
from trainer.launcher.plan.machine import CARDS, Machine, machine_of
from trainer.launcher.plan.overview import overview, overview_table
from trainer.launcher.plan.plan import plan_of
from trainer.settings.experiment import ExperimentConfig

EXPERIMENTS = Path(__file__).resolve().parents[4] / "experiments"
# Cards, and the smallest size (GB) of which a recipe's comment says that it suffices.
RECIPES = {"sed_grpo": (1, 80), "sed_grpo_two_gpus": (2, 40), "sed_grpo_eight_gpus": (8, 40)}
BEGINS, ENDS = "<!-- plan: written by `timepro plan --table`, not by hand -->", "<!-- end of plan -->"


def test_every_recipe_is_here() -> None:
    assert {path.stem for path in (EXPERIMENTS / "qwen2_5_omni_3b").glob("*.yaml")} == set(RECIPES)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_fits_the_cards_that_it_names(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.launcher.plan.machine.on_gpu", lambda: False)
    count, gb = RECIPES[recipe]
    config = load_experiment(f"qwen2_5_omni_3b/{recipe}", [], ExperimentConfig, EXPERIMENTS)
    assumed = machine_of(config, gb=gb)
    assert len(assumed.cards) == count
    for seconds in (10.0, 30.0):  # DESED's clips, and the longest that the model takes
        found = plan_of(config, assumed, seconds)
        assert found.problems == []
        assert found.worker.answers_at_a_time >= 16  # or a step would wait for one answer after another
        slack = min(load.has - load.needs for load in found.cards)
        assert slack > 1.0


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_goes_through_a_dry_run(
    recipe: str, folder: Path, manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = [f"data.{split}={manifest}" for split in ("sft", "rl", "validation", "test")]
    words = [f"model.path={folder}", *data, f"runs={manifest.parent / 'runs'}", "--dry-run"]
    code = main(["train", f"qwen2_5_omni_3b/{recipe}", *words])
    said = capsys.readouterr()
    assert code == 0, said.err
    assert "a rank needs" in said.out and "does not fit" not in said.out
    assert "a sync                 59.9 MB (adapters)" in said.out
    assert "a step                 about" in said.out


@pytest.fixture(scope="module")
def folder(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The 3B checkpoint's configuration with a small tokenizer; no weights."""
    folder = tmp_path_factory.mktemp("published")
    for path in tiny_checkpoint.iterdir():
        if path.suffix != ".safetensors" and path.name != "config.json":
            shutil.copy(path, folder)
    published = published_named("Qwen2.5-Omni-3B")
    assert published is not None
    config = published.config
    config["thinker_config"][CONFIG_KEY] = AstpLayout(first_token_id=151936).to_config()
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    ten = SoundscapeConfig(min_duration=10.0, max_duration=10.0)
    return write_split(tmp_path_factory.mktemp("data"), "train", 2, 0, ten)


def test_the_table_in_the_readme_is_what_the_plan_says(capsys: pytest.CaptureFixture[str]) -> None:
    readme = (EXPERIMENTS / "README.md").read_text(encoding="utf-8")
    written = readme.partition(BEGINS)[2].partition(ENDS)[0]
    assert main(["plan", "--table", "--format", "markdown"]) == 0
    assert written.strip() == capsys.readouterr().out.strip(), "timepro plan --table --format markdown writes it anew"


def test_more_and_larger_cards_never_need_more_changes() -> None:
    cells = overview()
    by_place = {(cell.model, cell.trained, cell.cards, cell.gb): cell for cell in cells}
    assert len(by_place) == len(cells) == 3 * 2 * 4 * 3
    for (model, trained, count, gb), cell in by_place.items():
        for smaller in (card.gb for card in CARDS if card.gb < gb):
            assert cell.fits >= by_place[model, trained, count, smaller].fits
    assert not by_place["Qwen2.5-Omni-7B", "adapters", 1, 40].fits  # 15 GiB of weights twice, and a pass of each
    assert overview_table(cells).row_count == 3 * 2 * 4


def test_the_plan_of_a_machine_without_cards_assumes_no_speed() -> None:
    config = load_experiment("sed_grpo", [], ExperimentConfig, EXPERIMENTS)
    found = plan_of(config, Machine(1, (), None))
    assert found.step is None and found.cards == [] and found.problems == []
