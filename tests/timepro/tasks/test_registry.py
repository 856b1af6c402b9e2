"""Finding tasks by name, by entry point and by import path, and what is refused."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import textwrap
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import toy_task
from timepro import plugins
from timepro.tasks import Column, Task, available_tasks, find_task, register, registry
from timepro.tasks.registry import ENTRY_POINT_GROUP, SHIPPED, outside_tasks, source_of, spec_of

ROOT = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.usefixtures("known_tasks")


def test_the_shipped_tasks_are_found_by_name():
    assert available_tasks() == ["sed", "ag", "dac"]
    for name, path in SHIPPED.items():
        assert find_task(path) is find_task(name)
        assert (find_task(name).name, spec_of(path)) == (name, name)
        assert source_of(name) == ROOT / "timepro" / "tasks" / f"{name}.py"
    assert outside_tasks() == []


def test_a_name_is_registered_once():
    @register
    class One(Task):
        name, asks = "one", "What?"

    assert "one" in available_tasks()
    with pytest.raises(ValueError, match="task 'one' is registered twice") as error:

        @register
        class Other(Task):
            name, asks = "one", "What?"

    assert len(set(re.findall(r"test_registry:\d+", str(error.value)))) == 2
    assert type(find_task("one")) is One


@pytest.mark.parametrize("imported", [True, False])
def test_the_name_of_a_shipped_task_is_taken_before_it_is_imported(monkeypatch, imported):
    if not imported:
        monkeypatch.delitem(registry._registry, "sed")
    with pytest.raises(ValueError, match=r"task 'sed' is registered twice: at timepro\.tasks\.sed.* and at .*test_reg"):

        @register
        class Mine(Task):
            name, asks = "sed", "What?"


def test_an_unknown_name_lists_near_names_and_all():
    with pytest.raises(ValueError, match=r"--task: unknown task 'sd'. Did you mean 'sed'\?.*Available: sed, ag, dac"):
        find_task("sd", "--task")


def test_a_task_from_outside_is_found_by_its_import_path_and_then_by_its_name(toy):
    with pytest.raises(ValueError, match="unknown task 'first'"):
        find_task("first")
    task = find_task(toy)
    assert (task.name, task.main_metric) == ("first", "hit")
    assert find_task("first") is find_task(toy) is task
    assert (spec_of("first"), spec_of(toy), outside_tasks()) == (toy, toy, [toy])
    assert source_of("first").name == f"{toy.partition(':')[0]}.py"
    assert "first" in available_tasks()


def test_a_task_that_registers_itself_is_found_again_by_another_process(tmp_path, monkeypatch):
    text = toy_task.SOURCE.replace("class FirstSound", "@register\nclass FirstSound")
    (tmp_path / "registers_itself.py").write_text("from timepro.tasks import register\n" + text)
    monkeypatch.syspath_prepend(tmp_path)
    __import__("registers_itself")
    assert spec_of("first") == "registers_itself:FirstSound"


def test_two_tasks_from_outside_with_one_name_are_refused_with_both_places(toy, tmp_path):
    other = toy_task.write(tmp_path / "outside", "another_users_task")
    find_task(toy)
    with pytest.raises(ValueError, match=f"registered twice: at {toy} and at {other}; rename one"):
        find_task(other)


def test_an_installed_package_offers_a_task_by_its_bare_name(toy, monkeypatch):
    points = [EntryPoint("first", toy, ENTRY_POINT_GROUP), EntryPoint("second", toy, ENTRY_POINT_GROUP)]
    monkeypatch.setattr(plugins, "entry_points", lambda group: points if group == ENTRY_POINT_GROUP else [])
    assert available_tasks() == ["sed", "ag", "dac", "first", "second"]
    assert (find_task("first").name, spec_of("first"), outside_tasks()) == ("first", "first", [])
    with pytest.raises(ValueError, match="entry point 'second'.* gives a task called 'first'"):
        find_task("second")


def test_an_installed_package_that_is_broken_is_named(monkeypatch):
    points = [EntryPoint("gone", "no_such_module_here:Gone", ENTRY_POINT_GROUP)]
    monkeypatch.setattr(plugins, "entry_points", lambda group: points)
    with pytest.raises(ValueError, match=r"key 'task': entry point gone = no_such_module_here:Gone .* uninstall"):
        find_task("gone", "key 'task'")


def test_an_import_path_does_not_look_through_the_installed_packages(toy, monkeypatch):
    monkeypatch.setattr(plugins, "entry_points", lambda group: pytest.fail("it did"))
    assert find_task(toy).name == "first"
    assert find_task(toy).name == "first"


def test_what_cannot_be_imported_says_why():
    with pytest.raises(ValueError, match="task: cannot import module 'no_such_module_here' of task"):
        find_task("no_such_module_here:Task")
    with pytest.raises(ValueError, match="has no 'Sde'; it has: .*SoundEventDetection"):
        find_task("timepro.tasks.sed:Sde")
    with pytest.raises(ValueError, match="cannot import module ''"):
        find_task(":Task")


class WithArguments(Task):
    name, asks = "with_arguments", "What?"

    def __init__(self, collar):
        self.collar = collar


def made(**changes):
    return type("Made", (Task,), {"name": "made", "asks": "What?"} | changes)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (len, "is builtin_function_or_method, which is not a task: derive it from timepro.tasks.Task"),
        (dict, "is dict, which is not a task"),
        (WithArguments, "cannot be made without arguments.*collar"),
        (made(name="my task"), "name is 'my task'; letters, digits"),
        (made(name=""), "name is ''"),
        (made(asks=""), "asks is empty"),
        (made(labels="words"), "labels is 'words'; it must be one of classes, captions, none"),
        (made(main_metric="hit"), "main_metric is 'hit', which is none of its columns"),
        (made(columns=(("miou", "mIoU"),)), r"columns holds \('miou', 'mIoU'\); each is a timepro.tasks.Column"),
    ],
)
def test_what_is_no_complete_task_is_refused(monkeypatch, target, words):
    monkeypatch.setattr(sys.modules[__name__], "target", target, raising=False)
    monkeypatch.setitem(sys.modules, "users_module", sys.modules[__name__])
    with pytest.raises(ValueError, match=f"task.yaml: .*{words}"):
        find_task("users_module:target", "task.yaml")


def test_a_task_may_be_an_instance(monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "target", WithArguments(0.5), raising=False)
    monkeypatch.setitem(sys.modules, "users_module", sys.modules[__name__])
    assert find_task("users_module:target").collar == find_task("with_arguments").collar == 0.5


def test_a_question_has_a_query_where_the_task_takes_one():
    assert find_task("ag").question("a {dog}") == "When does this sound occur: a {dog}?"
    with pytest.raises(ValueError, match="task ag asks about a query, and none is given"):
        find_task("ag").question()
    with pytest.raises(ValueError, match="task sed takes no query"):
        find_task("sed").question("a dog")


def test_tasks_and_their_samples_need_neither_torch_nor_numpy():
    code = """
        import sys
        from timepro.tasks import available_tasks, find_task
        from timepro.tasks.samples import evaluation_samples
        [find_task(name) for name in available_tasks()]
        print(*{name.partition(".")[0] for name in sys.modules} & {"torch", "numpy", "scipy", "rich", "transformers"})
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split() == []


def names_in(node: ast.expr) -> set[str]:
    return {n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and n.value in SHIPPED}


def test_only_the_tasks_themselves_tell_tasks_apart():
    """No comparison with a task's name, and no list of them, anywhere but in `timepro/tasks/`."""
    told = []
    for package in ("timepro", "rewards", "rollout", "trainer"):
        for path in (ROOT / package).rglob("*.py"):
            if path.parent == ROOT / "timepro" / "tasks":
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                compared = isinstance(node, ast.Compare) and names_in(node)
                listed = isinstance(node, (ast.Tuple, ast.List, ast.Set, ast.Dict)) and len(names_in(node)) > 1
                if compared or listed:
                    told.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert told == []


def test_a_column_reads_as_the_tables_take_it():
    assert Column("miou", "mIoU") == ("miou", "mIoU", ".3f", "+")
