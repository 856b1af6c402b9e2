"""Detection behind a text: the text is a sample's own, and learner and worker have it in front of the clip."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from timepro.checks.limits import ModelLimits
from timepro.checks.samples import Purpose, check_samples
from timepro.cli import main
from timepro.data.clips import Clip, ManifestEvent
from timepro.data.manifest import write_manifest
from timepro.features import Processor
from timepro.tasks import find_task
from timepro.tasks.behind_text import DetectionBehindText
from timepro.tasks.sed import SoundEventDetection
from trainer.learner.groups import GroupSampler
from trainer.learner.sft import target_row
from trainer.settings.groups import GroupsConfig

pytestmark = pytest.mark.usefixtures("known_tasks")
CLIPS = [Clip(f"c{i}", Path(f"/a/{i}.flac"), 2.0, (ManifestEvent(0.5, 1.0, "siren"),)) for i in range(40)]
TASK = DetectionBehindText()
SPEC = "timepro.tasks.behind_text:DetectionBehindText"


def test_a_sample_always_has_the_same_text_and_others_have_other_lengths() -> None:
    texts = [TASK.samples(clip, "exact")[0].before for clip in CLIPS]
    assert texts == [TASK.samples(clip, "exact")[0].before for clip in CLIPS]
    lengths = [len(text.split()) for text in texts]
    assert len(set(lengths)) > 20 and 1 <= min(lengths) < 10 and 50 < max(lengths) <= 60


def test_all_else_is_as_in_detection() -> None:
    (own,), (plain,) = TASK.samples(CLIPS[0], "exact"), SoundEventDetection().samples(CLIPS[0], "exact")
    assert (own.question, own.reference, own.target) == (plain.question, plain.reference, plain.target)
    assert (plain.before, TASK.labels, TASK.main_metric) == ("", "classes", "eb_f1_micro")


def test_the_learner_trains_behind_the_text_and_the_worker_is_asked_behind_it(
    tiny_checkpoint: Path, known_tasks: None
) -> None:
    find_task(SPEC)
    processor = Processor(tiny_checkpoint)
    (own,) = TASK.samples(CLIPS[0], "exact")
    (plain,) = SoundEventDetection().samples(CLIPS[0], "exact")
    frames = torch.zeros(25, 4)
    behind, without = (target_row(processor, sample, frames).prompt_ids for sample in (own, plain))
    text = processor.tokenizer(own.before, add_special_tokens=False).input_ids
    place = without.index(processor.audio_token_id) - 1  # the clip's opening token
    assert behind == [*without[:place], *text, *without[place:]]
    sampler: Any = SimpleNamespace(processor=processor, settings=GroupsConfig(), _seed_of=lambda step, name: None)
    (prompt,), _ = GroupSampler._prompts(sampler, [own], 0)
    assert prompt.token_ids == processor.prompt_ids(own.question, own.before) != processor.prompt_ids(own.question)


def test_the_text_counts_where_a_prompt_may_be_too_long(tmp_path: Path, tiny_checkpoint: Path, known_tasks) -> None:
    (tmp_path / "a.flac").write_bytes(b"not opened")
    write_manifest(tmp_path / "m.jsonl", [Clip("c1", tmp_path / "a.flac", 2.0, CLIPS[0].events)])
    limits = ModelLimits.of_checkpoint(tiny_checkpoint)
    room = limits.audio_tokens(2.0) + limits.question_tokens(TASK.question()) + 8
    for task, problems in (("sed", 0), (find_task(SPEC).name, 1)):
        purpose = Purpose("data.test", [task], max_tokens=8)
        assert len(list(check_samples(tmp_path / "m.jsonl", purpose, limits, room))) == problems


def test_transformers_refuse_what_they_would_ask_without_the_text(
    tmp_path: Path, tiny_checkpoint: Path, capsys
) -> None:

    (tmp_path / "a.flac").write_bytes(b"not opened")
    write_manifest(tmp_path / "m.jsonl", [Clip("c1", tmp_path / "a.flac", 2.0, CLIPS[0].events)])
    words = ["evaluate", "--backend", "transformers", "--checkpoint", str(tiny_checkpoint), str(tmp_path / "m.jsonl")]
    assert main([*words, "--task", SPEC, "--out", str(tmp_path / "a.jsonl")]) == 2
    assert "puts text in front of a clip, which --backend vllm alone can ask" in capsys.readouterr().err
