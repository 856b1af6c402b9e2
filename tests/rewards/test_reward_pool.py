"""Slow rewards in worker processes, and what failures mean: the run ends, or the completion leaves its group."""

from __future__ import annotations

import logging
import math
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from rewards import Completion, Group, build_reward, pool
from rewards.built import RewardFailed, RewardNotReady
from timepro.answers import parse_answer
from timepro.events import Event

MODULE = '''
import os, subprocess, sys, time
import numpy as np
from rewards import register


def act(text):
    """A completion's text says what happens when it is scored; a number is its value."""
    if text == "hang":
        time.sleep(600)
    elif text == "raise":
        raise ZeroDivisionError("told to")
    elif text == "refuse":
        raise ValueError("told to refuse")
    elif text == "exit":
        os._exit(7)
    elif text == "pid":
        return os.getpid()
    elif text.startswith("/"):  # a folder to meet another worker in
        open(os.path.join(text, str(os.getpid())), "w").close()
        while len(os.listdir(text)) < 2:
            time.sleep(0.01)
        return 1.0
    elif text == "child":
        return subprocess.Popen(["sleep", "600"]).pid
    elif text == "torch":
        return "torch" in sys.modules
    return float(text)


@register("acting", per_completion=True)
def acting(group):
    return [act(c.text) for c in group.completions]


@register("acting_slowly", slow=True, per_completion=True)
def acting_slowly(group):
    return [act(c.text) for c in group.completions]


@register("acting_together", slow=True)
def acting_together(group):
    return [act(c.text) for c in group.completions]


@register("started", slow=True)
class Started:
    def __init__(self):
        self.where = 0

    def start(self):
        self.where = os.getpid()

    def __call__(self, group):
        return np.full(len(group.completions), self.where)


@register("never_ready", slow=True, per_completion=True)
class NeverReady(Started):
    def start(self):
        raise OSError("no such model")


@register("doubled", children=("main",), slow=True)
class Doubled:
    def __init__(self, main="acting"):
        self.main = main

    def __call__(self, group):
        return 2 * self.main(group)


@register("above_mean", children=("main",))
class AboveMean:
    def __init__(self, main="acting"):
        self.main = main

    def __call__(self, group):
        main = self.main(group)
        return main - main.mean()
'''


@pytest.fixture(scope="module", autouse=True)
def users_module(tmp_path_factory):
    folder = tmp_path_factory.mktemp("users")
    (folder / "users_slow_rewards.py").write_text(MODULE)
    sys.path.insert(0, str(folder))
    build_reward("users_slow_rewards:acting")  # registers them all
    yield folder
    sys.path.remove(str(folder))
    pool.shared_pool().close()


def group_of(*texts: str, clip: str = "clip-3") -> Group:
    completions = tuple(Completion(text, parse_answer(text), False, len(text)) for text in texts)
    return Group((Event(0.4, 1.2, "dog"),), completions, "sed", 10.0, clip)


def slowly(**settings) -> dict:
    return {"name": "acting_slowly", **settings}


# ---------------------------------------------------------------- in a worker


def test_a_slow_reward_gives_the_same_values_and_parts():
    texts = ["dog 0.40-1.20", "dog 0.40-2.20", "none", "nonsense", "dog 5-6"]
    spec = {"name": "adaptive", "main": "eb_f1", "aux": {"name": "weighted", "terms": [{"reward": "miou"}]}}
    here, there = group_of(*texts), group_of(*texts)
    expected = build_reward(spec)(here)
    spec["aux"]["slow"] = True
    values = build_reward(spec)(there)
    np.testing.assert_array_equal(values, expected)
    assert set(there.parts) == {"adaptive", "eb_f1", "weighted", "miou"}
    for name, part in here.parts.items():
        np.testing.assert_array_equal(there.parts[name], part)


def test_a_whole_composition_can_be_slow():
    group = group_of("1", "2")
    assert build_reward("doubled")(group).tolist() == [2.0, 4.0]
    assert group.parts["acting"].tolist() == [1.0, 2.0]


def test_a_worker_is_a_new_process_without_the_learners_modules():
    mine, torch = build_reward("acting_slowly")(group_of("pid", "torch"))
    assert mine != os.getpid()
    assert torch == 0


def test_what_is_large_is_loaded_in_the_worker_alone():
    reward = build_reward("started")
    (where,) = reward(group_of("1"))
    assert where not in (0, os.getpid())
    assert reward.reward.where == 0


def test_groups_handed_in_ahead_are_scored_side_by_side(tmp_path):
    reward = build_reward(slowly(processes=2, timeout_s=60))
    groups = [group_of(str(tmp_path), clip="clip-1"), group_of(str(tmp_path), clip="clip-2")]
    reward.prefetch(groups)
    assert [reward(group)[0] for group in groups] == [1.0, 1.0]  # each waited for the other
    assert reward(groups[0])[0] == 1.0  # asked for again, it is handed in again


def test_groups_of_another_tasks_reward_are_not_handed_in():
    reward = build_reward({"name": "by_task", "sed": "format", "dac": slowly()})
    reward.prefetch([sound := group_of("raise"), caption := replace(group_of("3"), task="dac")])
    assert list(reward.reward.rewards["dac"]._ahead) == [id(caption)]
    assert (reward(sound)[0], reward(caption)[0]) == (0.0, 3.0)


def test_groups_that_nobody_asks_for_are_forgotten():
    reward = build_reward(slowly())
    reward.prefetch([group_of("1") for _ in range(5)])
    reward.forget()
    reward.prefetch([group := group_of("2")])
    reward.prefetch([other := group_of("3")])
    assert [reward(one).tolist() for one in (group, other)] == [[2.0], [3.0]]
    assert not pool.shared_pool()._waiting and not reward._ahead


def test_closing_ends_a_worker_and_what_it_started():
    (child,) = build_reward("acting_slowly")(group_of("child"))
    assert psutil.pid_exists(int(child))
    pool.shared_pool().close()
    deadline = time.monotonic() + 10
    while alive(int(child)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive(int(child))


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_no_hanging_worker_is_left_when_the_learner_is_killed(users_module):
    code = (
        "import sys; from tests_helper import group_of; from rewards import build_reward, pool;"
        "reward = build_reward('users_slow_rewards:acting_slowly'); reward(group_of('1'));"
        "reward.prefetch([group_of('hang')]); print(pool.shared_pool()._workers[0].process.pid, flush=True);"
        "sys.stdin.read()"
    )
    (users_module / "tests_helper.py").write_text(
        "from rewards import Completion, Group\n"
        "from timepro.answers import parse_answer\n"
        "def group_of(text):\n"
        "    return Group((), (Completion(text, parse_answer(text), False, 1),), 'sed', 1.0, 'c')\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    learner = subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    worker = psutil.Process(int(learner.stdout.readline()))
    learner.kill()
    learner.communicate(timeout=10)
    worker.wait(10)
    assert not worker.is_running()


# ---------------------------------------------------------------- on_error: fail


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("hang", RewardFailed, r"no values within 0.5 s: raise timeout_s.*on_error: skip"),
        ("raise", RewardFailed, "ZeroDivisionError: told to$"),
        ("exit", RewardFailed, "its worker process ended with exit code 7"),
        ("refuse", ValueError, "told to refuse$"),
        ("nan", ValueError, "value nan for completion 1 is not finite"),
    ],
)
def test_a_failure_ends_the_run_and_names_reward_and_clip(text, error, message):
    reward = build_reward(slowly(timeout_s=0.5))
    with pytest.raises(error, match=message) as found:
        reward(group_of("1", text))
    assert str(found.value).startswith("reward 'acting_slowly' on clip 'clip-3': ")
    assert str(found.value).count("acting_slowly") == 1
    assert reward(group_of("4")).tolist() == [4.0]  # a worker that is gone has been replaced


def test_the_workers_traceback_is_kept():
    with pytest.raises(RewardFailed) as found:
        build_reward(slowly())(group_of("raise"))
    assert any("users_slow_rewards.py" in note for note in found.value.__cause__.__notes__)


# ---------------------------------------------------------------- on_error: skip


@pytest.mark.parametrize("name", ["acting", "acting_slowly"])
@pytest.mark.parametrize("text", ["raise", "refuse", "nan", "inf"])
def test_a_completion_that_fails_leaves_the_group_and_its_statistics(name, text, caplog):
    reward = build_reward({"name": "above_mean", "main": {"name": name, "on_error": "skip"}})
    group = group_of("1", text, "5")
    with caplog.at_level(logging.WARNING, "rewards"):
        values = reward(group)
    np.testing.assert_array_equal(values, [-2.0, np.nan, 2.0])
    np.testing.assert_array_equal(group.parts["above_mean"], values)
    np.testing.assert_array_equal(group.parts[name], [1.0, np.nan, 5.0])
    assert list(group.skipped) == [name]
    assert list(group.skipped[name]) == [1]
    reason = {"raise": "told to", "refuse": "told to refuse"}.get(text, "is not finite")
    assert reason in group.skipped[name][1]
    (record,) = caplog.records
    assert f"reward {name!r} on clip 'clip-3': completion 1 of 3 leaves its group: " in record.getMessage()


@pytest.mark.parametrize("text", ["hang", "exit"])
def test_a_completion_that_hangs_or_kills_its_worker_leaves_the_group(text):
    group = group_of("1", text, "5")
    values = build_reward(slowly(timeout_s=0.5, on_error="skip"))(group)
    np.testing.assert_array_equal(values, [1.0, np.nan, 5.0])
    assert list(group.skipped["acting_slowly"]) == [1]


def test_a_reward_of_the_whole_group_loses_the_whole_group():
    group = group_of("1", "raise", "5")
    values = build_reward({"name": "acting_together", "on_error": "skip"})(group)
    assert np.isnan(values).all()
    assert list(group.skipped["acting_together"]) == [0, 1, 2]
    assert np.isnan(group.parts["acting_together"]).all()


def test_every_reward_sees_only_those_that_stay():
    seen = []

    def watch(group):
        seen.append([completion.text for completion in group.completions])
        return np.zeros(len(group.completions))

    failing = {"name": "acting", "on_error": "skip"}
    other = {"name": "acting", "as": "other", "on_error": "skip"}
    reward = build_reward({"name": "weighted", "terms": [{"reward": failing}, {"reward": other}]})
    reward.reward.terms.append((watch, 1.0))
    values = reward(group_of("raise", "1", "nan", "2"))
    np.testing.assert_array_equal(values, [np.nan, 2.0, np.nan, 4.0])
    assert seen == [["1", "2"]]


def test_the_same_group_can_be_scored_again():
    group = group_of("1", "raise")
    reward = build_reward({"name": "acting", "on_error": "skip"})
    for _ in range(2):
        np.testing.assert_array_equal(reward(group), [1.0, np.nan])
        assert list(group.skipped) == ["acting"]


def test_the_papers_rule_holds_among_those_that_stay():
    group = group_of("dog 0.40-1.20", "dog 0.50-1.30", "dog 7-8", "none")
    reward = build_reward("adaptive")
    main = reward.reward.main
    # The third, whose main reward alone makes the spread, leaves through a failure of the auxiliary reward.
    reward.reward.aux = build_reward({"name": "acting", "on_error": "skip"})
    reward.reward.aux.root = False
    reward.reward.aux.reward = lambda group: [
        math.nan if "7-8" in c.text or c.text == "none" else 0.5 for c in group.completions
    ]
    values = reward(group)
    np.testing.assert_array_equal(values, [0.5, 0.5, np.nan, np.nan])
    assert main.name == "eb_f1"


def test_a_wrong_shape_is_never_skipped():
    reward = build_reward({"name": "acting", "on_error": "skip"})
    reward.reward = lambda group: [1.0]
    with pytest.raises(ValueError, match=r"returned shape \(1,\), expected \(2,\)"):
        reward(group_of("1", "2"))


def test_a_reward_that_cannot_start_is_never_skipped():
    reward = build_reward({"name": "never_ready", "on_error": "skip"})
    with pytest.raises(RewardNotReady, match="reward 'never_ready' on clip 'clip-3': OSError: no such model"):
        reward(group_of("1", "2"))


# ---------------------------------------------------------------- configuration


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "eb_f1", "timeout_s": 3}, "rewards: timeout_s is for slow rewards; add 'slow: true'"),
        ({"name": "eb_f1", "processes": 3}, "rewards: processes is for slow rewards"),
        ({"name": "eb_f1", "on_error": "ignore"}, "on_error is 'ignore'; it must be one of fail, skip"),
        ({"name": "eb_f1", "slow": "yes"}, "slow must be true or false"),
        (slowly(timeout_s=0), "timeout_s must be a number of seconds > 0"),
        (slowly(processes=0), "processes must be a whole number >= 1"),
        ({"name": "doubled", "main": slowly(timeout_s=1)}, "parts run with it in one worker; remove timeout_s there"),
        ({"name": "adaptive", "aux": {"name": "miou", "timeout_s": 1}}, r"rewards\.aux: timeout_s is for slow"),
    ],
)
def test_settings_that_would_do_nothing_are_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        build_reward(spec)


def test_slow_can_be_switched_off_and_a_slow_part_inside_a_slow_reward_runs_there():
    assert build_reward(slowly(slow=False))(group_of("pid")).tolist() == [os.getpid()]
    (inner,) = build_reward({"name": "doubled", "main": "acting_slowly"})(group_of("pid"))
    assert inner / 2 != os.getpid()


def test_a_parameter_cannot_have_the_name_of_a_setting_of_every_reward():
    from rewards import register

    with pytest.raises(ValueError, match="on_error cannot be a parameter"):
        register("clash")(lambda group, on_error: 0)


def test_a_reward_of_the_main_program_cannot_be_slow(tmp_path: Path):
    program = tmp_path / "program.py"
    program.write_text(
        "from rewards import build_reward, register\n"
        "@register('mine', slow=True)\ndef mine(group):\n    return [0.0]\n"
        "build_reward('mine')\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=60, env=environment)
    assert "must be defined in a module that a worker process can import" in done.stderr
