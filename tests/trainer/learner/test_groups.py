"""Drawing groups: other prompts in the place of flat ones, alike on every rank, and the record of both."""

from __future__ import annotations

import json
import threading
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from rewards import build_reward
from rollout.client import Answer, AnswerGroup, WorkerError
from timepro.events import Event
from timepro.runs import path_from
from timepro.tasks import Sample
from trainer.learner import distributed
from trainer.learner.groups import GroupSampler, prompt_seed, record
from trainer.learner.order import Mixture, Outcome, order_of
from trainer.learner.recovery import WorkersLost
from trainer.settings.groups import GroupsConfig
from trainer.settings.grpo import GrpoConfig

RIGHT, WRONG = [1], [2]
TEXT = {1: "dog 0.40-1.20", 2: "dog 3.00-4.00"}


class ScriptedPool:
    """Stands in for the workers: sample `flat-...` gets equal answers, any other one different ones."""

    def __init__(self, version: int = 0) -> None:
        self.asked: list[list[str]] = []
        self.seeds: list[list[int | None]] = []
        self.versions: list[int | None] = []
        self.version = version

    def generate(self, prompts, sampling, version=None):
        self.asked.append([p.id for p in prompts])
        self.seeds.append([p.seed for p in prompts])
        self.versions.append(version)
        return [
            AnswerGroup(
                p.id,
                p.token_ids,
                [
                    Answer(WRONG if "flat" in p.id or i else RIGHT, [-0.5], False, (self.version,))
                    for i in range(sampling.n)
                ],
                "worker",
                0.1,
            )
            for p in prompts
        ]

    def submit(self, prompts, sampling, arrived=None, version=None):
        future = Future()
        try:
            future.set_result(self.generate(prompts, sampling, version))
        except WorkerError as error:
            future.set_exception(error)
        return future


PROCESSOR = SimpleNamespace(
    eos_token_id=0, prompt_ids=lambda question, before: [7], answer_text=lambda ids: TEXT[ids[0]]
)


def sampler(names, pool, monkeypatch, ranks=1, rank=0, **settings) -> GroupSampler:
    monkeypatch.setattr(distributed, "rank", lambda: rank)
    monkeypatch.setattr(distributed, "world_size", lambda: ranks)
    reference = (Event(0.4, 1.2, "dog"),)
    samples = [Sample(name, "sed", Path("/a.flac"), 5.0, "?", reference, reference) for name in names]
    made = GroupSampler(
        PROCESSOR, pool, build_reward("eb_f1"), samples, Mixture([len(names)], [1.0], 0),
        GrpoConfig(groups=GroupsConfig(group_size=2, **settings)), 0,
        SimpleNamespace(attempt=lambda work, version: work()),
    )  # fmt: skip
    made.order.take = iter_take(len(names))  # in the list's order, to be read easily
    return made


def iter_take(n):
    place = [0]

    def take(count):
        out = [(place[0] + k) % n for k in range(count)]
        place[0] += count
        return out

    return take


def draw(sampler, step=1, version=0):
    """What was asked for, and the same scored."""
    asked = sampler.sample(step, version)
    return asked, sampler.score_asked(asked)


def ids(groups):
    return [group.sample.id for group in groups]


def test_flat_groups_are_kept_where_they_are_to_be_skipped(monkeypatch):
    made = sampler(["a", "flat-1", "b"], ScriptedPool(), monkeypatch, prompts_per_step=2)
    asked, drawn = draw(made)
    assert made.resample(asked, drawn, 0) == drawn
    assert made.pool.asked == [["a", "flat-1"]]


def test_the_next_prompts_take_the_place_of_flat_groups(monkeypatch):
    monkeypatch.setattr(distributed, "from_every", lambda value: [value])
    names = ["flat-1", "a", "flat-2", "b", "flat-3", "c", "d"]
    made = sampler(names, ScriptedPool(), monkeypatch, prompts_per_step=3, flat_groups="resample")
    asked, drawn = draw(made)
    assert ids(made.resample(asked, drawn, 0)) == ["b", "a", "c"]
    assert made.pool.asked == [["flat-1", "a", "flat-2"], ["b", "flat-3"], ["c"]]
    assert ids(drawn) == ["flat-1", "a", "flat-2"]


def test_the_rounds_are_bounded(monkeypatch):
    monkeypatch.setattr(distributed, "from_every", lambda value: [value])
    made = sampler([f"flat-{i}" for i in range(9)], ScriptedPool(), monkeypatch, prompts_per_step=2,
                   flat_groups="resample", resample_rounds=3)  # fmt: skip
    assert ids(made.resample(*draw(made), 0)) == ["flat-6", "flat-7"]
    assert len(made.pool.asked) == 4


@pytest.mark.parametrize(("rank", "replacement"), [(0, ["d"]), (1, ["e", "f"])])
def test_every_rank_takes_its_own_part_of_the_replacements(monkeypatch, rank, replacement):
    counts = iter([[1, 2], ["", ""], [0, 0]])  # flat groups of the two ranks, round by round; how scoring went
    monkeypatch.setattr(distributed, "from_every", lambda value: next(counts))
    names = ["flat-1", "flat-2", "a", "flat-3", "d", "e", "f", "g"]  # a sample goes to rank `index % 2`
    made = sampler(names, ScriptedPool(), monkeypatch, ranks=2, rank=rank, prompts_per_step=4, flat_groups="resample")
    kept = made.resample(*draw(made), 0)
    assert made.pool.asked[1] == replacement
    assert ids(kept) == (["d", "a"] if rank == 0 else ["e", "f"])
    assert made.order.take(1) == [7]  # both ranks have moved the order by all three


def test_groups_that_are_ahead_come_back_from_a_checkpoint_as_they_were(monkeypatch):
    made = sampler(["a", "b"], ScriptedPool(version=3), monkeypatch, prompts_per_step=2)
    assert made.ahead_as_json() == "null" and not made.has_asked_ahead
    made.ask_ahead(5, 3)
    made.finish_ahead(4)
    assert made.pool.versions == [3]  # those that were asked, whatever the learner has by now
    other = sampler(["a", "b"], ScriptedPool(), monkeypatch, prompts_per_step=2)
    other.restore_ahead([made.ahead_as_json()])
    there, here = made.sample(5, 4), other.sample(5, 4)
    assert (here.step, here.version, here.place) == (5, 3, there.place)
    assert here.groups == there.groups and other.pool.asked == []
    assert [sample.id for sample in here.samples] == [group.id for group in here.groups] == ["a", "b"]
    other.restore_ahead(["null"])
    assert not other.has_asked_ahead


def test_groups_whose_worker_failed_are_asked_for_again_with_the_weights_of_now(monkeypatch):
    made = sampler(["a"], ScriptedPool(), monkeypatch, prompts_per_step=1)
    generate, failing = made.pool.generate, [True]

    def once(prompts, sampling, version=None):
        if failing.pop() if failing else False:
            raise WorkerError("gone")
        return generate(prompts, sampling, version)

    def attempt(work, version):
        try:
            return work()
        except WorkerError:
            return work()

    made.pool.generate, made.recovery = once, SimpleNamespace(attempt=attempt)
    made.ask_ahead(5, 3)
    made.finish_ahead(4)
    asked = made.sample(5, 4)
    assert len(asked.groups) == 1
    assert (made.pool.versions, asked.version) == ([4], 4)


@pytest.mark.parametrize("ahead", [False, True])
def test_prompts_of_lost_workers_go_back_into_the_order(monkeypatch, ahead):
    made = sampler(["a", "b", "c", "d"], ScriptedPool(), monkeypatch, prompts_per_step=2)
    made.order = Mixture([4], [1.0], 0)
    before = made.order.state()
    if ahead:
        made.sample(0, 0)
        before = made.order.state()
        made.ask_ahead(1, 0)

    def lost(work, version):
        raise WorkersLost("gone for good")

    made.recovery = SimpleNamespace(attempt=lost)
    with pytest.raises(WorkersLost):
        made.finish_ahead(1) if ahead else made.sample(0, 0)
    assert made.order.state() == before and not made.has_asked_ahead


def test_an_order_of_ones_own_hears_how_the_prompts_went(monkeypatch):
    class Hearing(Mixture):
        heard = ()

        def observe(self, outcomes):
            self.heard = [*self.heard, *outcomes]

    made = sampler(["a", "flat-1"], ScriptedPool(), monkeypatch, prompts_per_step=2)
    _, drawn = draw(made)
    made.observe(drawn)  # the shipped order does not listen, and no rank is asked
    monkeypatch.setattr(distributed, "from_every", lambda value: [value, [("other rank", None, 0.0)]])
    made.order = Hearing([2], [1.0], 0)
    made.observe(drawn)
    assert made.order.heard == [Outcome("a", 0.5, 0.5), Outcome("flat-1", 0.0, 0.0), Outcome("other rank", None, 0.0)]


def test_the_next_step_is_asked_for_before_this_one_is_scored_unless_its_order_has_to_hear_of_that_first(monkeypatch):
    class Hearing(Mixture):
        def observe(self, outcomes):
            pass

    monkeypatch.setattr(distributed, "from_every", lambda value: [value])
    for order, at_once in ((Mixture([4], [1.0], 0), True), (Hearing([4], [1.0], 0), False)):
        made = sampler(["a", "b", "c", "d"], ScriptedPool(), monkeypatch, prompts_per_step=2)
        made.order = order
        asked = made.sample(0, 0)
        made.ask_ahead(1, 0)
        assert made.has_asked_ahead is at_once
        made.observe(made.score_asked(asked))
        assert made.has_asked_ahead
        made.give_back(asked)
        assert made.order.state() == type(order)([4], [1.0], 0).state() and not made.has_asked_ahead


class OneByOne(ScriptedPool):
    """Gives the first group at once, and the others when it is told to; or fails."""

    def __init__(self, error=None):
        super().__init__()
        self.go_on, self.error = threading.Event(), error

    def submit(self, prompts, sampling, arrived=None, version=None):
        groups, future = self.generate(prompts, sampling, version), Future()
        arrived(0, groups[0])

        def rest():
            came = self.go_on.wait(20)
            if self.error or not came:
                future.set_exception(self.error or TimeoutError("nobody has scored the first group meanwhile"))
                return
            for placed in list(enumerate(groups))[1:]:
                arrived(*placed)
            future.set_result(groups)

        threading.Thread(target=rest, daemon=True).start()
        return future


def test_a_group_that_is_there_is_scored_while_a_long_one_is_on_its_way(monkeypatch):
    made = sampler(["a", "b", "c"], pool := OneByOne(), monkeypatch, prompts_per_step=3)
    scored, score = [], made.reward.reward

    def once(group):
        scored.append(group.clip_id)
        pool.go_on.set()
        return score(group)

    made.reward.reward = once
    asked, drawn = draw(made)
    assert ids(drawn) == ["a", "b", "c"]
    assert sorted(scored) == ["a", "b", "c"]  # each once
    assert asked.seconds > 0
    plain = draw(sampler(["a", "b", "c"], ScriptedPool(), monkeypatch, prompts_per_step=3))[1]
    assert [g.rewards.tolist() for g in drawn] == [g.rewards.tolist() for g in plain]


def test_what_cannot_be_scored_early_fails_where_all_ranks_hear_of_it(monkeypatch):
    made = sampler(["a", "b"], pool := OneByOne(), monkeypatch, prompts_per_step=2)

    def refuse(group):
        pool.go_on.set()
        raise ValueError(f"no score for {group.clip_id}")

    made.reward.reward = refuse
    asked = made.sample(1, 0)
    with pytest.raises(ValueError, match="no score for a"):
        made.score_asked(asked)


def test_scores_of_groups_whose_worker_failed_are_forgotten(monkeypatch):
    made = sampler(["a", "b"], broken := OneByOne(WorkerError("gone")), monkeypatch, prompts_per_step=2)
    score = made.reward.reward

    def attempt(work, version):
        with pytest.raises(WorkerError):
            work()
        made.pool = ScriptedPool(version=4)
        return work()

    made.reward.reward = lambda group: (broken.go_on.set(), score(group))[1]
    made.recovery = SimpleNamespace(attempt=attempt)
    asked, drawn = draw(made, version=4)
    assert not made.scorer._early
    assert [group.sampled for group in drawn] == asked.groups
    assert {answer.weight_versions for group in drawn for answer in group.answers} == {(4,)}


def test_answers_have_seeds_unless_the_workers_are_to_draw_faster(monkeypatch):
    made = sampler(["a", "b"], ScriptedPool(), monkeypatch, prompts_per_step=2)
    draw(made, step=3)
    made.seed = None  # rollout.seeded=false
    draw(made, step=3)
    assert made.pool.seeds == [[prompt_seed(0, 3, "a"), prompt_seed(0, 3, "b")], [None, None]]


def test_an_order_is_found_by_its_import_path(monkeypatch, tmp_path):
    (tmp_path / "own_order.py").write_text(
        "from trainer.learner.order import Mixture\n\n\nclass Backwards(Mixture):\n"
        "    def take(self, count):\n        return super().take(count)[::-1]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    own = order_of("own_order:Backwards", [5], [1.0], 0)
    assert own.take(5) == Mixture([5], [1.0], 0).take(5)[::-1]
    with pytest.raises(ValueError, match="grpo.groups.order: module 'own_order' has no 'Forwards'"):
        order_of("own_order:Forwards", [5], [1.0], 0)


def test_groups_are_asked_for_with_their_weight_version(monkeypatch):
    made = sampler(["a"], ScriptedPool(version=3), monkeypatch, prompts_per_step=1)
    draw(made, version=4)
    assert made.pool.versions == [4]


def test_the_record_holds_trained_and_replaced_groups(monkeypatch, tmp_path):
    monkeypatch.setattr(distributed, "from_every", lambda value: [value])
    made = sampler(["flat-1", "a", "b"], ScriptedPool(), monkeypatch, prompts_per_step=2, flat_groups="resample")
    asked, drawn = draw(made)
    trained = made.resample(asked, drawn, 0)
    record(tmp_path, 5, drawn, trained, [np.array([1.0, -1.0]), np.array([0.5, -0.5])])
    lines = [json.loads(line) for line in (tmp_path / "rollouts" / "step-000005.rank0.jsonl").read_text().splitlines()]
    assert [(line["id"], line.get("replaced", False)) for line in lines] == [("b", 0), ("a", 0), ("flat-1", 1)]
    assert lines[0]["answers"][0]["parts"] == {"eb_f1": 1.0}
    assert lines[0]["reference"] == [{"onset": 0.4, "offset": 1.2, "label": "dog"}]
    assert [[answer["advantage"] for answer in line["answers"]] for line in lines] == [[1, -1], [0.5, -0.5], [0, 0]]
    assert [answer["reward"] for answer in lines[2]["answers"]] == [0.0, 0.0]
    audio = drawn[0].sample.audio
    assert {path_from(tmp_path, line["audio"]) for line in lines} == {audio.parent.resolve() / audio.name}
    assert not any(Path(line["audio"]).is_absolute() for line in lines)


def test_prompt_seeds_differ_by_run_step_and_sample():
    seeds = {prompt_seed(seed, step, name) for seed in range(5) for step in range(20) for name in ("a", "b", "clip-12")}
    assert len(seeds) == 300
    assert prompt_seed(1, 2, "é") == prompt_seed(1, 2, "é")
    assert min(seeds) >= 0
    assert max(seeds) < 2**63
    assert np.array(list(seeds)).dtype == np.int64
