"""Building rewards from configuration: names, parameters, nesting, user code, and errors that help."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint

import numpy as np
import pytest
from omegaconf import OmegaConf

from rewards import Completion, Group, available_rewards, build_reward, register, registry
from timepro import plugins
from timepro.events import Event, ParsedAnswer


@pytest.fixture
def clean_registry(monkeypatch):
    monkeypatch.setattr(registry, "_registry", dict(registry._registry))


@pytest.fixture
def group():
    completions = tuple(Completion("x" * n, ParsedAnswer([], True), False, n) for n in (3, 5))
    return Group((Event(0, 1, "a"),), completions, "sed", 4.0, "clip-42")


def test_duplicate_name_names_both_places(clean_registry):
    register("twice")(lambda group: group)
    first = sys._getframe().f_lineno - 1
    with pytest.raises(ValueError, match="'twice' is registered twice") as error:
        register("twice")(lambda group: group)
    second = sys._getframe().f_lineno - 1
    assert f":{first} " in str(error.value)
    assert f":{second};" in str(error.value)
    assert str(error.value).count("test_reward_registry:") == 2


def test_unknown_name_lists_near_and_all_names():
    with pytest.raises(ValueError, match=r"unknown reward 'adaptiv'. Did you mean 'adaptive'") as error:
        build_reward("adaptiv")
    assert all(name in str(error.value) for name in available_rewards())
    with pytest.raises(ValueError, match=r"rewards\.aux: unknown reward 'moiu'"):
        build_reward({"name": "adaptive", "aux": "moiu"})


def test_unknown_and_missing_parameters_list_the_valid_ones():
    with pytest.raises(ValueError, match=r"no parameter 'onset_colar'.*'onset_collar'.*offset_ratio, tolerance"):
        build_reward({"name": "eb_f1", "onset_colar": 0.1})
    with pytest.raises(ValueError, match="'weighted' needs terms"):
        build_reward("weighted")
    with pytest.raises(ValueError, match="onset_collar must be >= 0"):
        build_reward({"name": "eb_f1", "onset_collar": -1})


@pytest.mark.parametrize("spec", [None, 3, {}, {"nam": "eb_f1"}, ["eb_f1"]])
def test_what_is_no_spec_is_refused(spec):
    with pytest.raises(ValueError, match="rewards: expected a reward's name or a mapping"):
        build_reward(spec)


@pytest.mark.parametrize("given", [dict, OmegaConf.create])
def test_nested_specs(given):
    spec = {
        "name": "adaptive",
        "main": {"name": "eb_f1", "onset_collar": 0.1},
        "aux": {"name": "weighted", "as": "help", "terms": [{"reward": {"name": "miou", "as": "iou"}, "weight": 2}]},
        "epsilon": 1e-3,
    }
    reward = build_reward(given(spec))
    assert reward.reward.epsilon == 1e-3
    assert reward.reward.main.reward.settings["onset_collar"] == 0.1
    assert reward.reward.aux.name == "help"
    assert reward.reward.aux.reward.terms[0][0].name == "iou"
    assert reward.reward.aux.reward.terms[0][1] == 2


def test_defaults_apply_beneath_the_spec():
    defaults = {"eb_f1": {"onset_collar": 0.3, "offset_collar": 0.4}}
    reward = build_reward({"name": "adaptive", "main": {"name": "eb_f1", "onset_collar": 0.1}}, defaults)
    settings = reward.reward.main.reward.settings
    assert (settings["onset_collar"], settings["offset_collar"]) == (0.1, 0.4)


def test_parts_are_recorded_and_clashes_refused(group):
    build_reward({"name": "adaptive", "main": {"name": "eb_f1", "as": "first"}})(group)
    assert set(group.parts) == {"adaptive", "first", "miou"}
    clash = {"name": "adaptive", "main": "eb_f1", "aux": {"name": "eb_f1", "onset_collar": 0.5}}
    with pytest.raises(ValueError, match="two different rewards are recorded as 'eb_f1'.*as: NAME"):
        build_reward(clash)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ([1.0], r"shape \(1,\), expected \(2,\)"),
        ([[1.0, 2.0]], r"shape \(1, 2\)"),
        ([1.0, float("nan")], "value nan for completion 1 is not finite"),
        ([1.0, float("inf")], "not finite"),
        (["a", "b"], "could not convert"),
        (None, "shape|not finite|None"),
    ],
)
def test_bad_output_names_reward_and_clip(clean_registry, group, result, message):
    register("broken")(lambda group: result)
    with pytest.raises(ValueError, match=message) as error:
        build_reward("broken")(group)
    assert "'broken'" in str(error.value)
    assert "'clip-42'" in str(error.value)
    assert "broken" not in group.parts


def test_users_reward_by_import_path(tmp_path, monkeypatch, clean_registry, group):
    (tmp_path / "users_rewards_by_path.py").write_text(
        "import numpy as np\n"
        "from rewards import register\n"
        "def length(group, scale=1.0):\n"
        "    return [scale * c.n_tokens for c in group.completions]\n"
        "class Constant:\n"
        "    def __init__(self, value): self.value = value\n"
        "    def __call__(self, group): return np.full(len(group.completions), self.value)\n"
        "@register('half', children=('main',))\n"
        "class Half:\n"
        "    def __init__(self, main='format'): self.main = main\n"
        "    def __call__(self, group): return self.main(group) / 2\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert build_reward({"name": "users_rewards_by_path:length", "scale": 2})(group).tolist() == [6.0, 10.0]
    assert build_reward({"name": "users_rewards_by_path:Constant", "value": 3})(group).tolist() == [3.0, 3.0]
    nested = {"name": "users_rewards_by_path:Half", "main": "users_rewards_by_path:length"}
    assert build_reward(nested)(group).tolist() == [1.5, 2.5]
    assert build_reward("half")(group).tolist() == [0.5, 0.5]
    assert group.parts["length"].tolist() == [3.0, 5.0]
    with pytest.raises(ValueError, match=r"has no 'lenght'; it has: .*length"):
        build_reward("users_rewards_by_path:lenght")
    with pytest.raises(ValueError, match="cannot import module 'no_such_module_here'"):
        build_reward("no_such_module_here:reward")


def test_entry_points_are_names(monkeypatch, group):
    point = EntryPoint(name="installed", value="numpy:asarray", group=registry.ENTRY_POINT_GROUP)
    monkeypatch.setattr(EntryPoint, "load", lambda self: lambda group: np.array([1.0, 2.0]))
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point])
    assert "installed" in available_rewards()
    assert build_reward("installed")(group).tolist() == [1.0, 2.0]


def test_an_entry_point_of_a_broken_package_is_named(monkeypatch):
    point = EntryPoint(name="gone", value="numpy:no_such_reward", group=registry.ENTRY_POINT_GROUP)
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point])
    with pytest.raises(ValueError, match=r"entry point gone = numpy:no_such_reward .* mend or uninstall its package"):
        build_reward("gone")
