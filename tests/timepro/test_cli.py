"""The table of commands: what each imports, what is said without one, and how fast a wrong use is answered."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from timepro import __version__
from timepro.cli import COMMANDS, EXAMPLES, main
from timepro.hints import command, program, runnable

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "deepspeed", "vllm", "transformers")
NAMES = [name for name, _, _ in COMMANDS]


def run(*words: str, cwd: Path = ROOT) -> tuple[int, str, str, list[str]]:
    """A command in a process of its own: exit code, both outputs, and the modules that it has imported."""
    code = (
        "import json, sys\nfrom timepro.cli import main\n"
        "try: code = main(sys.argv[1:])\nexcept SystemExit as stop: code = stop.code or 0\n"
        "sys.stdout.flush(); print('\\n@modules', json.dumps([code, sorted(sys.modules)]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=cwd, capture_output=True, text=True, timeout=120, check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "NNODES": ""},
    )  # fmt: skip
    out, _, marked = done.stdout.rpartition("\n@modules ")
    code, modules = json.loads(marked)
    return code, out, done.stderr, modules


def test_without_a_command_there_is_help(capsys) -> None:
    assert main([]) == 0
    said = capsys.readouterr().out
    assert all(re.search(rf"^  {name} +\S", said, re.MULTILINE) for name in NAMES)
    assert runnable(EXAMPLES) in said


def test_the_version(capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0 and capsys.readouterr().out == f"timepro {__version__}\n"


def test_an_unknown_command_names_a_near_one(capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["trian", "sed_grpo"])
    assert stop.value.code == 2
    assert "there is no command 'trian' (did you mean train?)" in capsys.readouterr().err


@pytest.mark.parametrize("name", NAMES)
def test_help_imports_the_commands_own_module_and_nothing_heavy(name: str) -> None:
    code, out, _, modules = run(name, "--help")
    own = dict((n, where.partition(":")[0]) for n, _, where in COMMANDS)
    assert code == 0 and "examples:" in out
    assert [n for n in NAMES if own[n] in modules] == [name]
    assert not set(HEAVY) & set(modules)


def test_the_help_of_all_imports_no_command() -> None:
    code, _, _, modules = run("--help")
    assert code == 0 and not {where.partition(":")[0] for _, _, where in COMMANDS} & set(modules)
    assert not {"numpy", "yaml", "rich"} & set(modules)


def test_only_the_table_names_modules_of_other_packages() -> None:
    for path in (ROOT / "timepro").rglob("*.py"):
        if path.name != "cli.py":
            found = re.findall(r"""["'](?:trainer|rewards|rollout)\.\w+[\w.:]*["']""", path.read_text())
            assert not [name for name in found if "import_module" in path.read_text()], path


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "sed_gpro"], "there is no experiment 'sed_gpro' (did you mean sed_grpo"),
        (["train", "sed_grpo", "max_steps=3"], "unknown key max_steps (did you mean"),
        (["train", "sed_grpo", "trainer.max_steps=3"], "it is called grpo.max_steps now"),
        (["train", "sed_grpo", "grpo.max_steps=-3"], "-3 is out of range; it must be at least 1"),
        (["train", "sed_grpo", "name=../../x"], "cannot name a run's folder"),
        (["train", "sed_grpo", "rewards=eb_f2"], "unknown reward 'eb_f2'. Did you mean 'eb_f1'"),
        (["train", "nowhere/mine.yaml"], "there is no file nowhere/mine.yaml"),
        (["train", "sed_grpo", "runs=/proc/nowhere"], "runs=/proc/nowhere cannot be made"),
        (["runs", "runs/gone"], "runs/gone is not a folder"),
        (["diff", "runs/gone", "runs/other"], "runs/gone is not a folder"),
        (["sweep", "sed_seeds"], "there is no sweep sed_seeds (did you mean sed_grpo_seeds"),
        (["sweep", "sed_grpo_seeds", "--list", "--here", "grpo.max_step=1"], "did you mean grpo.max_steps"),
        (["doctor", "sed_gpro"], "there is no experiment 'sed_gpro'"),
        (["doctor", "lr=3"], "unknown key lr (did you mean"),
        (["plot", "errors", "runs/gone"], "runs/gone is not a folder"),
        (["report", "runs/gone"], "runs/gone is not a folder"),
        (["inspect", "runs/gone"], "runs/gone is not a folder"),
        (["attention", "runs/gone/checkpoint", "clip.wav"], "runs/gone/checkpoint does not exist"),
        (["evaluate", "gone.tsv", "gone.jsonl"], "gone.jsonl"),
        (["init-model", "gone", "new"], "gone is neither a folder nor a hub name"),
        (["init-model", "rewards", "timepro"], "timepro exists already"),
        (["check-reward", "eb_f2"], "unknown reward 'eb_f2'"),
        (["data", "show", "gone.jsonl"], "gone.jsonl"),
    ],
)
def test_a_wrong_use_is_answered_before_anything_heavy_is_imported(words: list[str], message: str) -> None:
    code, _, said, modules = run(*words)
    assert code == 2 and message in said, said
    assert not set(HEAVY) & set(modules)


def test_a_dry_run_imports_nothing_heavy(tmp_path: Path) -> None:
    code, out, said, modules = run("train", "sed_grpo", f"runs={tmp_path}", "--dry-run", "grpo.groups.group_size=4")
    assert code == 0 and "group_size: 4" in out and "largest micro-batch" in out, said
    assert not set(HEAVY) & set(modules)
    assert not list(tmp_path.iterdir())


def test_settings_may_stand_behind_options(tmp_path: Path, capsys) -> None:
    assert main(["train", "sed_grpo", "--dry-run", f"runs={tmp_path}", "seed=3"]) == 0
    assert "\nseed: 3\n" in capsys.readouterr().out
    for words, message in (
        (["train", "sed_grpo", "--dry", "extra"], "extra: neither an option nor key=value"),
        (["report", "runs/a", "--audoi", "3"], "--audoi 3: not an option of this command"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert stop.value.code == 2 and message in capsys.readouterr().err


def test_an_experiment_of_the_users_own_from_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "own.yaml").write_text("base: sed_grpo\nseed: 11\n")
    (tmp_path / "mine.yaml").write_text("base: experiments/own\ngrpo: {max_steps: 7}\n")
    for name, seed in (("mine.yaml", 11), ("own", 11), ("ag_grpo", 0)):
        code, out, said, _ = run("train", name, "--dry-run", cwd=tmp_path)
        assert code == 0 and f"\nseed: {seed}\n" in out, said


def test_a_reader_that_has_seen_enough_ends_a_command_quietly(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "a" / "config.yaml").write_text("seed: 1\n")
    (tmp_path / "b" / "config.yaml").write_text("".join(f"key_{i}: {'x' * 200}\n" for i in range(2000)))
    for few_lines_too in (["diff", "a", "a"], ["diff", "a", "b"]):
        process = subprocess.Popen(
            [sys.executable, "-m", "timepro.cli", *few_lines_too], cwd=tmp_path, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        process.stdout.close()
        assert process.stderr.read() == "" and process.wait(timeout=60) in (1, 141)  # 1: in the middle of a table


def test_a_hint_can_be_run_as_it_is_printed(tmp_path: Path) -> None:
    done = subprocess.run(command("--version"), shell=True, capture_output=True, text=True, cwd=Path.cwd(), check=True)
    assert done.stdout == f"timepro {__version__}\n"
    code = "from timepro.hints import command; print(command('--version'))"
    for cwd in (ROOT, tmp_path, Path(sys.executable).parent):
        printed = subprocess.run(
            [sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        ).stdout  # fmt: skip
        done = subprocess.run(printed, shell=True, cwd=cwd, capture_output=True, text=True)
        assert done.returncode == 0 and done.stdout.startswith("timepro "), printed


def test_a_program_on_the_path_is_called_by_its_name(monkeypatch, tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("timepro")
    if not script.is_file():
        pytest.skip("timepro is not installed as a program here")
    monkeypatch.setattr(sys, "argv", ["timepro"])
    monkeypatch.setenv("PATH", f"{script.parent}{os.pathsep}{os.environ['PATH']}")
    assert program() == "timepro"
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(script.parents[2])
    assert program() == str(script.relative_to(script.parents[2]))
    monkeypatch.chdir(tmp_path)
    assert program() == str(script)
