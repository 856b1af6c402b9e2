"""Every registered reward keeps the contract; each built-in one says what its formula says."""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np
import pytest

from rewards import BuiltReward, Completion, Group, available_rewards, build_reward, registry
from rewards.contract import check_reward
from timepro.answers import parse_answer
from timepro.events import Event
from timepro.metrics.captions import clip_meteor

REFERENCE = (Event(0.4, 1.2, "dog"), Event(2.0, 4.0, "rain"))
TEXTS = (
    "dog 0.40-1.20; rain 2.00-4.00",
    "dog 0.5-1.3",
    "dog from 3 to 9 s",
    "none",
    "nonsense",
    "",
    "dog 0.7-1.2; cat 1-2",
)
# Rewards that cannot be built from their name alone; a new one adds a line here.
SPECS = {
    "by_task": {"name": "by_task", "sed": "eb_f1", "ag": "miou", "dac": "format"},
    "weighted": {"name": "weighted", "terms": [{"reward": "miou", "weight": 0.7}, {"reward": "format", "weight": 0.3}]},
    "cascade": {"name": "cascade", "stages": [{"reward": "eb_f1"}, {"reward": "eb_f1_soft"}, {"reward": "format"}]},
    "length_penalty": {"name": "length_penalty", "free": 5, "limit": 25},
    "meteor": {"name": "meteor", "slow": False},  # one Java process here, not one more in a worker
}


@functools.cache
def built(name: str) -> BuiltReward:
    try:
        return build_reward(SPECS.get(name, name))
    except ValueError as error:
        if name == "meteor" and "pip install" in str(error):
            pytest.skip(str(error))
        raise


def group_of(*texts: str, reference: tuple[Event, ...] = REFERENCE, task: str = "sed") -> Group:
    completions = tuple(Completion(text, parse_answer(text), False, len(text)) for text in texts)
    return Group(reference, completions, task, 10.0, "clip-7")


@pytest.mark.parametrize("task", ["sed", "ag", "dac"])
@pytest.mark.parametrize("name", available_rewards())
def test_contract(name, task):
    reward = built(name)
    report = check_reward(reward, (task,))
    assert report.kept, [finding for finding in report.outcomes.values() if finding.broken]
    assert all(finding.cases for finding in report.outcomes.values())
    for reference in (REFERENCE, REFERENCE[:1], ()):
        group = group_of(*TEXTS, reference=reference, task=task)
        values = reward(group)
        assert values.shape == (len(TEXTS),)
        assert values.dtype == np.float64
        assert np.isfinite(values).all()
        assert len(set(values.tolist())) > 1  # it tells answers apart
        np.testing.assert_array_equal(group.parts[name], values)


@pytest.mark.parametrize("name", ["eb_f1", "eb_f1_soft", "miou", "iou", "onset_f1", "count", "meteor"])
def test_ends_of_the_scale(name):
    reward = built(name)
    assert reward(group_of(TEXTS[0], "none", "nonsense")).tolist() == pytest.approx([1.0, 0.0, 0.0])
    empty = group_of("none", "dog 1-2", "nonsense", reference=())
    assert reward(empty).tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("name", ["eb_f1", "eb_f1_soft", "miou", "onset_f1"])
def test_labels_count_in_detection_only_unless_set(name):
    right_time = "cat 0.40-1.20; cat 2.00-4.00"
    assert build_reward(name)(group_of(right_time))[0] == 0.0
    assert build_reward(name)(group_of(right_time, task="ag"))[0] == pytest.approx(1.0)
    assert build_reward({"name": name, "use_label": True})(group_of(right_time, task="dac"))[0] == 0.0


def test_event_f1_accepts_the_exact_collar_and_takes_its_settings():
    group = group_of("a 0.56-2.00", reference=(Event(0.36, 2.0, "a"),))
    assert build_reward("eb_f1")(group)[0] == 1.0
    assert build_reward({"name": "eb_f1", "tolerance": 0.0})(group)[0] == 0.0
    assert build_reward({"name": "eb_f1", "onset_collar": 0.1})(group)[0] == 0.0


@pytest.mark.parametrize("name", ["eb_f1", "eb_f1_soft"])
def test_unread_parts_count_as_wrong_events_where_asked(name):
    texts = ("<0.40>dog<1.20>", "<0.40>dog<1.20><5.00>cat<6.00>", "<0.40>dog<1.20><5.00>cat", "none", "<5.00>cat")
    lenient, strict = (build_reward({"name": name, "count_unread": count}) for count in (False, True))
    assert lenient(group_of(*texts)) == pytest.approx([2 / 3, 2 / 4, 2 / 3, 0, 0])
    assert strict(group_of(*texts)) == pytest.approx([2 / 3, 2 / 4, 2 / 4, 0, 0])  # half an event, as a whole one
    assert strict(group_of("none", "no events", "<5.00>cat", reference=())) == pytest.approx([1, 1, 0])
    assert build_reward(name)(group_of(*texts)) == pytest.approx(lenient(group_of(*texts)))  # the paper's, by default


def test_soft_event_f1_against_all_assignments():
    rng = np.random.default_rng(5)

    def curve(error, collar):
        return 1 / (1 + math.exp((error - collar) / 0.08)) * (1 + math.exp(-collar / 0.08))

    def credit(ref, est):
        if ref.label != est.label:
            return 0.0
        collar = max(0.2, 0.2 * (ref.offset - ref.onset))
        return curve(abs(ref.onset - est.onset), 0.2) * curve(abs(ref.offset - est.offset), collar)

    reward = build_reward("eb_f1_soft")
    for _ in range(50):
        sides = []
        for _ in range(2):
            starts = rng.integers(0, 100, size=4) / 100
            ends = starts + rng.integers(20, 200, size=4) / 100
            labels = rng.choice(["a", "b"], size=4).tolist()
            sides.append([Event(*event) for event in zip(starts.tolist(), ends.tolist(), labels, strict=True)])
        best = max(
            sum(credit(ref, est) for ref, est in zip(sides[0], order, strict=True))
            for order in itertools.permutations(sides[1])
        )
        text = "; ".join(f"{e.label} {e.onset!r}-{e.offset!r}" for e in sides[1])
        assert reward(group_of(text, reference=tuple(sides[0])))[0] == pytest.approx(2 * best / 8, abs=1e-9)


def test_soft_event_f1_falls_smoothly_and_sharpens_to_event_f1():
    texts = [f"dog {0.4 + shift:.2f}-1.20" for shift in (0, 0.1, 0.2, 0.3, 0.5)]
    group = group_of(*texts, reference=REFERENCE[:1])
    soft = build_reward("eb_f1_soft")(group)
    assert (np.diff(soft) < 0).all()
    sharp = build_reward({"name": "eb_f1_soft", "width": 1e-4, "onset_collar": 0.21})(group)
    np.testing.assert_allclose(sharp, build_reward({"name": "eb_f1", "onset_collar": 0.21})(group), atol=1e-9)


def test_format_levels():
    assert build_reward("format")(group_of("dog 1.00-2.00", "dog: 1 to 2 s", "hm")).tolist() == [1.0, 0.5, 0.0]


def test_weighted_sums_its_terms():
    group = group_of(*TEXTS)
    values = build_reward(SPECS["weighted"])(group)
    np.testing.assert_allclose(values, 0.7 * group.parts["miou"] + 0.3 * group.parts["format"])
    mistyped, infinite = {"reward": "miou", "wieght": 1}, {"reward": "miou", "weight": math.inf}
    for terms in ([], "miou", [mistyped], [infinite], [{"weight": 1}]):
        with pytest.raises(ValueError, match="terms|rewards.terms"):
            build_reward({"name": "weighted", "terms": terms})


def test_iou_is_that_of_all_intervals_whatever_they_are_of():
    # 0.8 s and 2 s are right, of 0.4 to 4.0 s answered.
    assert built("iou")(group_of("cat 0.40-4.00"))[0] == pytest.approx(2.8 / 3.6)


def test_onset_f1_asks_for_onsets_alone():
    reward = built("onset_f1")
    assert reward(group_of("dog 0.40-0.41; rain 2.20-9.00", "dog 0.70-1.20")).tolist() == [1.0, 0.0]
    assert build_reward({"name": "onset_f1", "onset_collar": 0.35})(group_of("dog 0.70-9.00"))[0] == pytest.approx(
        2 / 3
    )
    with pytest.raises(ValueError, match="onset_collar must be >= 0"):
        build_reward({"name": "onset_f1", "onset_collar": -1})


def test_count_is_the_ratio_of_the_numbers_of_events():
    texts = ["a 1-2", "a 1-2; b 3-4", "a 1-2; b 3-4; c 5-6", "a 1-2; b 3-4; c 5-6; d 7-8"]
    assert built("count")(group_of(*texts)).tolist() == pytest.approx([1 / 2, 1, 2 / 3, 1 / 2])


def test_length_penalty_falls_linearly_from_free_to_limit():
    reward = build_reward({"name": "length_penalty", "free": 10, "limit": 20})
    completions = tuple(Completion("", parse_answer(""), False, n) for n in (0, 10, 15, 20, 99))
    cut = Completion("", parse_answer(""), True, 5)
    group = Group(REFERENCE, (*completions, cut), "sed", 10.0, "clip-7")
    assert reward(group).tolist() == [0.0, 0.0, -0.5, -1.0, -1.0, -1.0]
    with pytest.raises(ValueError, match="need 0 <= free < limit"):
        build_reward({"name": "length_penalty", "free": 20, "limit": 20})


def test_meteor_reward_is_the_metrics_value():
    group = group_of(TEXTS[0], "dog 0.40-1.20", "cat 0.40-1.20; dog 2.00-4.00", task="dac")
    joined, matched = built("meteor"), build_reward({"name": "meteor", "slow": False, "measure": "matched"})
    matched.reward.meteor = joined.reward.meteor  # one Java process is enough
    estimates = [completion.answer.events for completion in group.completions]
    for reward, measure in ((joined, "joined"), (matched, "matched")):
        expected = clip_meteor([REFERENCE] * 3, estimates, joined.reward.meteor, measure)
        assert reward(group).tolist() == expected
    assert matched(group)[1] == pytest.approx(0.5 * matched(group)[0])
    with pytest.raises(ValueError, match="must be one of joined, matched"):
        build_reward({"name": "meteor", "measure": "best"})


# ---------------------------------------------------------------- adaptive


def rule_by_hand(main: list[float], aux: list[float], epsilon: float = 1e-6) -> list[float]:
    mean = sum(main) / len(main)
    variance = sum((value - mean) ** 2 for value in main) / len(main)
    return [m * a for m, a in zip(main, aux, strict=True)] if variance < epsilon else main


def test_adaptive_follows_the_rule():
    from rewards.adaptive import Adaptive

    rng = np.random.default_rng(0)
    branches = set()
    for spread in [0.0, 5e-4, 9.9e-4, 1.01e-3, 2e-3, 0.3] * 20:
        # +-spread around the centre has population variance spread**2; the sample variance would be 4/3 of it.
        main = (0.5 + spread * np.array([1, -1, 1, -1])).tolist()
        aux = rng.random(4).tolist()
        reward = Adaptive(main=lambda group, m=main: np.array(m), aux=lambda group, a=aux: np.array(a))
        values = reward(group_of(*TEXTS[:4])).tolist()
        assert values == rule_by_hand(main, aux)
        branches.add(values == main)
    assert branches == {True, False}


def test_adaptive_leaves_zero_groups_and_reranks_equal_positive_ones():
    reward = build_reward("adaptive")
    zero = group_of("dog 5-6", "dog 7.0-8.0", "nonsense", "dog 0.4-2.2")
    assert reward(zero).tolist() == [0.0] * 4
    assert zero.parts["miou"].max() > 0  # the product is zero although the auxiliary reward is not
    equal = group_of("dog 0.40-1.20", "dog 0.50-1.30", "dog 0.30-1.10", reference=REFERENCE[:1])
    values = reward(equal)
    assert equal.parts["eb_f1"].tolist() == [1.0] * 3
    np.testing.assert_array_equal(values, equal.parts["miou"])
    assert values[0] > values[1]
    spread = group_of(TEXTS[0], "none")
    np.testing.assert_array_equal(reward(spread), spread.parts["eb_f1"])


def test_by_task_asks_the_tasks_own_reward():
    reward = build_reward({"name": "by_task", "sed": "eb_f1", "ag": {"name": "adaptive"}})
    assert reward.part_names == ("adaptive", "by_task", "eb_f1", "miou")
    group = group_of(*TEXTS)
    np.testing.assert_array_equal(reward(group), build_reward("eb_f1")(group_of(*TEXTS)))
    assert set(group.parts) == {"by_task", "eb_f1"}  # only what was asked is recorded
    with pytest.raises(ValueError, match="no reward is named for task 'dac'"):
        reward(group_of(*TEXTS, task="dac"))
    with pytest.raises(ValueError, match="at least one task"):
        build_reward("by_task")


# ---------------------------------------------------------------- compositions with a signal where the product has none


def by_hand(name: str, main: list[float], aux: list[float], **settings: float) -> list[float]:
    values = {"main": np.array(main), "aux": np.array(aux)}
    rewards = {key: (lambda group, v=value: v.copy()) for key, value in values.items()}
    return registry._registry[name].target(**rewards, **settings)(group_of(*TEXTS[: len(main)])).tolist()


def test_adaptive_mean_ranks_a_group_of_zeros_and_leaves_spread_alone():
    assert by_hand("adaptive_mean", [0, 0, 0], [0.2, 0.4, 0]) == pytest.approx([0.1, 0.2, 0])
    assert by_hand("adaptive_mean", [1, 1], [0.5, 0]) == [0.75, 0.5]
    assert by_hand("adaptive_mean", [1, 0.5], [0, 1]) == [1, 0.5]
    zero = group_of("dog 5-6", "nonsense", "dog 0.4-2.2")
    assert build_reward("adaptive")(zero).tolist() == [0.0] * 3
    assert len(set(build_reward("adaptive_mean")(zero).tolist())) > 1


def test_tie_break_never_overturns_the_main_reward_and_ranks_every_tie():
    assert by_hand("tie_break", [0, 0, 1], [0.2, 1, 0], share=0.5) == [0.1, 0.5, 1]
    assert by_hand("tie_break", [0.3, 0.3], [0, 1], share=0.5) == [0.3, 0.8]
    rng = np.random.default_rng(0)
    for _ in range(200):
        main, aux = rng.choice([0, 0.2, 0.25, 1], size=6), rng.random(6)
        values = by_hand("tie_break", main, aux, share=0.99)
        order = sorted(range(6), key=lambda i: (main[i], aux[i]))
        assert np.argsort(values).tolist() == order
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\], got 0 to 3"):
        by_hand("tie_break", [0, 1], [0, 3])
    with pytest.raises(ValueError, match="share must be between 0 and 1"):
        build_reward({"name": "tie_break", "share": 1.0})


def test_cascade_takes_the_first_stage_with_spread():
    def values(*stages: list[float]) -> list[float]:
        rewards = [{"reward": lambda group, s=stage: np.array(s)} for stage in stages]
        return registry._registry["cascade"].target(rewards)(group_of(*TEXTS[:2])).tolist()

    assert values([0, 1], [5, 6]) == [0, 1]
    assert values([1, 1], [0, 0], [5, 6]) == [5, 6]
    assert values([1, 1], [0, 0]) == [1, 1]
    for stages in ([], "miou", [{"reward": "miou", "weight": 1}]):
        with pytest.raises(ValueError, match="stages"):
            build_reward({"name": "cascade", "stages": stages})
