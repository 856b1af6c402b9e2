"""The house: which room may look into which, no circles, and files and functions that a reader can take in."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from timepro.system.source import imports_of, module_file, project_modules

ROOT = Path(__file__).resolve().parents[1]
MOST_LINES, MOST_FUNCTION_LINES = 400, 80
# A room, and the rooms that it may import from.
ROOMS = {
    "timepro": (),
    "rewards": ("timepro",),
    "rollout": ("timepro",),
    "trainer.settings": ("timepro", "rollout"),
    "trainer.messages": ("timepro",),
    "trainer.learner": ("timepro", "rewards", "rollout", "trainer.settings", "trainer.messages"),
    "trainer.launcher": ("timepro", "rewards", "rollout", "trainer.settings", "trainer.messages"),
}
HEAVY_FOR_THE_LAUNCHER = ("deepspeed", "peft")


def room_of(module: str) -> str:
    return next((room for room in ROOMS if module == room or module.startswith(f"{room}.")), "")


def python_files() -> list[Path]:
    folders = ("timepro", "rewards", "rollout", "trainer", "experiments", "tests")
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def test_rooms_look_down_only() -> None:
    wrong = [
        f"{module} -> {other}"
        for module in project_modules()
        for other in imports_of(module)
        if room_of(other) not in (room_of(module), *ROOMS.get(room_of(module), ()))
    ]
    assert not wrong, "\n".join(wrong)


def test_there_are_no_circles_of_imports() -> None:
    """Hidden ones neither: an import inside a function counts like one at the top."""
    done: set[str] = set()
    for start in project_modules():
        circle = _circle(start, [], done)
        assert circle is None, " -> ".join(circle or [])


def _circle(module: str, path: list[str], done: set[str]) -> list[str] | None:
    if module in path:
        return [*path[path.index(module) :], module]
    if module in done:
        return None
    for other in imports_of(module):
        if other != module and (found := _circle(other, [*path, module], done)):
            return found
    done.add(module)
    return None


def test_the_launcher_has_nothing_to_train_with() -> None:
    wrong = []
    for module in project_modules():
        if room_of(module) != "trainer.launcher":
            continue
        path = module_file(module)
        assert path is not None
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            wrong += [f"{module}: {name}" for name in names if name.split(".")[0] in HEAVY_FOR_THE_LAUNCHER]
            if isinstance(node, ast.Attribute) and node.attr == "backward":
                wrong.append(f"{module}: computes a gradient")
    assert not wrong, "\n".join(wrong)


def test_text_is_utf_8_whatever_the_users_locale() -> None:
    """In a Latin-1 locale, a class called "Tür" would else be read as another one than was written."""
    wrong = []
    for module in project_modules():
        path = module_file(module)
        assert path is not None
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and _is_text_in_the_locales_encoding(node):
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not wrong, "give an encoding: " + ", ".join(wrong)


def _is_text_in_the_locales_encoding(call: ast.Call) -> bool:
    function = call.func
    method = isinstance(function, ast.Attribute)
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    owner = function.value.id if method and isinstance(function.value, ast.Name) else ""
    others = ("os", "Image", "soundfile", "av")
    if any(keyword.arg in ("encoding", None) for keyword in call.keywords) or owner in others:
        return False
    if name in ("read_text", "write_text"):
        return method  # `write_text` alone is ours
    modes = [a.value for a in call.args if isinstance(a, ast.Constant) and set(str(a.value)) <= set("rwaxbt+")]
    return name == "open" and not any("b" in str(mode) for mode in modes)


@pytest.mark.parametrize("path", python_files(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_files_and_functions_fit(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= MOST_LINES
    long = [f"{name}: {lines} lines" for name, lines in _functions(ast.parse(text)) if lines > MOST_FUNCTION_LINES]
    assert not long


def _functions(tree: ast.Module) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def test_the_loop_reads_on_one_screen() -> None:
    path = module_file("trainer.learner.grpo")
    assert path is not None
    classes = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)]
    grpo = next(node for node in classes if node.name == "Grpo")
    train = next(node for node in grpo.body if isinstance(node, ast.FunctionDef) and node.name == "train")
    body = train.body[1:]  # without its docstring
    assert (body[-1].end_lineno or 0) - body[0].lineno + 1 <= 40


def _is_named(name: str, text: str) -> bool:
    """A file may stand by its stem alone (`eb_f1` for a reward), a folder by what is in it (`base/*`)."""
    return bool(re.search(rf"`{re.escape(name.rstrip('/').partition('.')[0])}[`./*]", text))


READMES = sorted(path for path in ROOT.rglob("README.md") if not {".venv", "runs", ".git"} & set(path.parts))


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_readme_lists_every_file_of_its_folder(readme: Path) -> None:
    text, folder = readme.read_text(), readme.parent
    if folder == ROOT:
        names = [p.name for p in ROOT.iterdir() if p.is_dir() and (p / "README.md").is_file()]
    else:
        names = [p.name for p in sorted(folder.iterdir()) if p.suffix in (".py", ".yaml")]
        inside = [p for p in sorted(folder.iterdir()) if p.is_dir() and any(p.rglob("*.py"))]
        names += [f"{p.name}/" for p in inside]
        with_a_table = [p for p in inside if f"| `{p.name}/` | what it holds |" in text]
        names += [file.name for p in with_a_table for file in sorted(p.glob("*.py"))]
    missing = [name for name in names if not name.startswith(("__", ".")) and not _is_named(name, text)]
    assert not missing, f"{readme.relative_to(ROOT)} does not name {', '.join(missing)}"


def test_the_table_of_what_can_be_extended_names_files_that_are_there() -> None:
    section = (ROOT / "README.md").read_text().split("## Extend it")[1].split("\n## ")[0]
    files = [name for name in re.findall(r"`([\w/.]+)`", section) if "/" in name]
    assert len(files) >= 12
    assert [name for name in files if not (ROOT / name).is_file()] == []


_OF_A_CARD = re.compile(
    r"""["']cuda|\bcuda\.|nccl|\bon_gpu\(|\bn_gpus\(|pin_memory|torch\.accelerator|device\.type|nvidia-smi|gpu_memory_fraction"""
    r"""|CUDA_VISIBLE_DEVICES""",
    re.IGNORECASE,
)


def test_every_place_where_a_card_makes_a_difference_is_listed() -> None:
    """In trainer/README.md, with the test that exercises it without a card."""
    readme = (ROOT / "trainer" / "README.md").read_text(encoding="utf-8")
    section = readme.partition("## What only a card runs")[2].partition("\n## ")[0]
    listed: set[Path] = set()
    for row in section.splitlines():
        folder = Path()
        for name in re.findall(r"`([^`]+)`", row.split("|")[1]) if row.startswith("| `") else ():
            path = ROOT / name if (ROOT / name).exists() else ROOT / "trainer" / name
            folder, path = (path.parent, path) if "/" in name else (folder, folder / name)
            listed.add(path)
    missing = [path for path in python_files() if _differs_on_a_card(path) and not listed & {path, *path.parents}]
    assert not missing, f"not listed in trainer/README.md, What only a card runs: {missing}"
    assert not [path for path in listed if not path.exists()]
    tests = [path.relative_to(ROOT).as_posix() for path in python_files() if path.name.startswith("test_")]
    named = re.findall(r"`([a-z_/]*test_[a-z_]+\.py)`", section)
    assert named and not [name for name in named if not any(test.endswith(name) for test in tests)]


def _differs_on_a_card(path: Path) -> bool:
    inside = path.relative_to(ROOT).parts[0] not in ("experiments", "tests")
    return inside and bool(_OF_A_CARD.search(path.read_text(encoding="utf-8")))
