"""Samples against a model, before there is one: every problem by manifest, line and id, none of them twice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from timepro.astp import AstpLayout, expand_prompt, interleave
from timepro.checks.limits import ModelLimits
from timepro.checks.samples import Purpose, check_samples, label_notes, problems_text
from timepro.features import Processor
from timepro.tiny.config import TimestampsConfig, TinyModelConfig

EVENT = {"onset": 0.5, "offset": 1.0, "label": "dog_bark", "caption": "a dog barks once"}
LATE = {"annotated_onset": 0.7, "annotated_offset": 1.2}


def write(folder: Path, *clips: dict) -> Path:
    """A manifest; a clip's audio has its duration unless `seconds` says otherwise."""
    lines = []
    for number, clip in enumerate(clips):
        clip = {"id": f"c{number}", "duration": 3.0, "events": [EVENT]} | clip
        seconds = clip.pop("seconds", clip["duration"])
        clip["audio"] = f"{clip['id']}.wav"
        soundfile.write(folder / clip["audio"], np.zeros(max(1, round(16000 * seconds))), 16000)
        lines.append(json.dumps(clip) + "\n")
    (folder / "m.jsonl").write_text("".join(lines))
    return folder / "m.jsonl"


def problems(manifest: Path, *tasks: str, tiny: TinyModelConfig | None = None, length: int = 0, **purpose) -> list[str]:
    limits = ModelLimits.of_tiny(tiny or TinyModelConfig())
    found = check_samples(manifest, Purpose("data.sft", tasks or ("sed",), **purpose), limits, length)
    return [str(problem).removeprefix(f"{manifest}:") for problem in found]


# ---------------------------------------------------------------- clips


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (35.0, "lasts 35 s, more than the 30 s that the audio encoder takes"),
        (30.001, "lasts 30.001 s, more than the 30 s"),
        (30.0, ""),
        (0.005, "lasts 0.005 s, 80 of the 321 samples at 16000 Hz"),
        (320 / 16000, "320 of the 321 samples"),
        (321 / 16000, ""),
        (1 / 16000, "1 of the 321 samples"),
    ],
)
def test_clips_that_the_encoder_cannot_take_are_named(
    tmp_path: Path, tiny_checkpoint: Path, seconds: float, words: str
) -> None:
    manifest = write(tmp_path, {}, {"id": "x", "duration": seconds, "events": []})
    found = problems(manifest)
    assert len(found) == bool(words) and all(f.startswith("2: clip 'x': ") and words in f for f in found)
    processor = Processor(tiny_checkpoint)  # which is where a run would stumble over it
    if words:
        with pytest.raises(ValueError):
            processor.features(tmp_path / "x.wav")
    else:
        frames = processor.family.audio_frames(processor.features(tmp_path / "x.wav").shape[-1])
        assert ModelLimits.of_checkpoint(tiny_checkpoint).audio_tokens(seconds) == len(
            interleave(frames, 0, processor.layout, processor.family.frame_rate)
        )


def test_near_a_limit_the_file_itself_is_asked(tmp_path: Path) -> None:
    manifest = write(tmp_path, {"duration": 30.0, "seconds": 30.05}, {"duration": 30.05, "seconds": 30.0})
    assert problems(manifest) == [
        "1: clip 'c0': lasts 30.05 s, more than the 30 s that the audio encoder takes; cut the clip"
    ]


def test_a_clip_whose_file_has_no_header_is_judged_by_its_stated_duration(tmp_path: Path) -> None:
    raw = tmp_path / "x.raw"  # libsndfile would have to be told what is in it
    raw.write_bytes(bytes(64))
    limits = ModelLimits.of_tiny(TinyModelConfig())
    assert limits.clip_problem(30.0, raw) == ""
    assert limits.clip_problem(30.1, raw).startswith("lasts 30.1 s, more than the 30 s")


def test_timestamps_must_reach_to_the_end_of_a_clip(tmp_path: Path) -> None:
    tiny = TinyModelConfig(timestamps=TimestampsConfig(duration=10.0))
    manifest = write(tmp_path, {"duration": 10.0}, {"duration": 12.0})
    (found,) = problems(manifest, tiny=tiny)
    assert found.startswith("2: clip 'c1': ") and "the timestamps end at <9.96>" in found
    tiny.timestamps.style = "factorised"
    assert problems(manifest, tiny=tiny) == [found]
    tiny.astp = False  # nothing stands in the prompt, but the answer's time has no token
    event = {"onset": 10.5, "offset": 11.0, "label": "x"}
    (found,) = problems(write(tmp_path, {"duration": 12.0}, {"duration": 12.0, "events": [event]}), tiny=tiny)
    assert found.startswith("2: ") and "time 11.0 s is outside the timestamp range" in found
    tiny.answer_style = "digits"
    assert problems(tmp_path / "m.jsonl", tiny=tiny) == []


def test_an_event_a_rounding_behind_the_end_of_the_range_can_be_written(tmp_path: Path) -> None:
    event = {"onset": 29.0, "offset": 30.001, "label": "x"}
    assert problems(write(tmp_path, {"duration": 30.0, "events": [event]})) == []
    assert ModelLimits.of_tiny(TinyModelConfig()).layout.vocabulary.index(30.001) == 749


# ---------------------------------------------------------------- answers


@pytest.mark.parametrize("caption", ["a door creaks; someone laughs", "counting 3-2-1", "a <1.00> b", "to"])
def test_captions_that_no_answer_can_hold_are_named_once(tmp_path: Path, caption: str) -> None:
    bad = {"id": "semi", "events": [EVENT, EVENT | {"caption": caption}]}
    manifest = write(tmp_path, {}, bad)
    style = TinyModelConfig(answer_style="digits" if "3-2-1" in caption else "timestamps")
    assert problems(manifest, "dac", tiny=style) == [
        f"2: clip 'semi': {caption!r} would not be read back from an answer as it is"
    ]
    assert problems(manifest, "sed", tiny=style) == []  # where captions are not said


def test_labels_are_looked_at_too(tmp_path: Path) -> None:
    manifest = write(tmp_path, {"events": [EVENT | {"label": "a;b"}]})
    assert problems(manifest) == ["1: clip 'c0': 'a;b' would not be read back from an answer as it is"]
    assert problems(manifest, "dac") == []


def test_what_a_task_needs_is_asked_for_clip_by_clip(tmp_path: Path) -> None:
    bare = {key: value for key, value in EVENT.items() if key != "caption"}
    manifest = write(tmp_path, {"events": [bare]}, {}, {"events": [bare]})
    assert problems(manifest, "dac") == [
        f"{line}: clip '{name}': events ['dog_bark'] have no caption, which task dac needs"
        for line, name in ((1, "c0"), (3, "c2"))
    ]
    with pytest.raises(
        ValueError, match=r"data\.sft \(.*m\.jsonl\) has no sample for task ag: none of its 3 clips has a"
    ):
        problems(manifest, "sed", "ag")


# ---------------------------------------------------------------- label times


def test_label_times_are_annotated_where_all_clips_have_them(tmp_path: Path) -> None:
    from timepro.data.manifest import read_manifest
    from timepro.tasks.samples import samples_of

    query = {"text": "a dog", "intervals": [[0.5, 1.0]]}
    late = {"events": [EVENT | LATE], "queries": [query | {"annotated_intervals": [[0.7, 1.2]]}]}
    for clips, expected in (
        ([late, late | {"events": []}], 0.7),
        ([late, {"queries": [query]}], 0.5),  # some have none
        ([{"events": [], "queries": [query]}], 0.5),
    ):
        manifest = write(tmp_path, *clips)
        assert problems(manifest, "sed", "ag", times="auto") == []
        for task in ("sed", "dac", "ag"):
            times = [e.onset for s in samples_of(read_manifest(manifest), task, "auto") for e in s.target]
            assert set(times) <= {expected}


def test_missing_annotated_times_are_one_error_that_names_the_key(tmp_path: Path) -> None:
    manifest = write(tmp_path, {"events": [EVENT | LATE]}, *({} for _ in range(30)))
    with pytest.raises(
        ValueError, match=r"label_times=annotated, but 30 of 31 clips of data\.sft .*, the first 'c1', .*auto"
    ):
        problems(manifest, times="annotated")
    with pytest.raises(ValueError, match="sft.label_times is 'late'"):
        problems(manifest, times="late")


# ---------------------------------------------------------------- prompts


def test_prompts_that_leave_no_room_for_an_answer_are_named(tmp_path: Path, tiny_checkpoint: Path) -> None:
    """The bound is exact: what is said to fit fits, and a token less does not."""
    manifest = write(tmp_path, {}, {"duration": 8.0})
    processor = Processor(tiny_checkpoint)
    limits = ModelLimits.of_checkpoint(tiny_checkpoint)
    question = "Detect the sound events with their start and end times."
    ids = processor.prompt_ids(question)
    frames = processor.family.audio_frames(800)
    prompt = expand_prompt(ids, [frames], processor.audio_token_id, processor.layout, processor.family.frame_rate)
    purpose = Purpose("data.rl", ("sed",), max_tokens=50)
    assert list(check_samples(manifest, purpose, limits, len(prompt) + 50)) == []
    (found,) = check_samples(manifest, purpose, limits, len(prompt) + 49)
    assert (found.line, found.clip) == (2, "c1")
    assert f"an answer of 50 are {len(prompt) + 50} tokens, more than rollout.max_model_len={len(prompt) + 49}" in str(
        found
    )
    purpose = Purpose("data.rl", ("sed",), max_tokens=50, row_tokens=len(prompt) + 49)
    (found,) = check_samples(manifest, purpose, limits, len(prompt) + 50)
    assert f"more than grpo.batch.micro_batch_tokens={len(prompt) + 49}" in str(found)


def test_the_tokenizer_is_read_once_for_all_questions(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoTokenizer

    limits, read, original = ModelLimits.of_checkpoint(tiny_checkpoint), [], AutoTokenizer.from_pretrained
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda *a, **k: (read.append(a), original(*a, **k))[1])
    assert limits.question_tokens("When does a dog bark?") < limits.question_tokens("When does a dog bark, and a cat?")
    assert len(read) == 1


def test_without_a_tokenizer_the_bound_is_said_to_be_one(tmp_path: Path, tiny_checkpoint: Path) -> None:
    manifest = write(tmp_path, {"duration": 30.0})
    (found,) = problems(manifest, length=1520, max_tokens=20)
    assert "at most" in found and "1500 tokens of audio and timestamps" in found
    limits, question = ModelLimits.of_tiny(TinyModelConfig()), "When does this sound occur: a caf\u00e9?"
    assert limits.question_tokens(question) >= len(Processor(tiny_checkpoint).prompt_ids(question)) - 1


# ---------------------------------------------------------------- as a whole


def test_all_problems_come_at_once_and_most_of_them_are_counted(tmp_path: Path) -> None:
    manifest = write(tmp_path, *({"events": [EVENT | {"caption": f"a; {i}"}]} for i in range(30)))
    limits = ModelLimits.of_tiny(TinyModelConfig())
    found = list(check_samples(manifest, Purpose("data.sft", ("dac",)), limits))
    lines = problems_text(found).splitlines()
    assert lines[0].startswith("30 problems with the samples") and lines[1].startswith(f"  {manifest}:1: clip 'c0'")
    assert lines[-2] == "  and 10 more" and "remove line breaks, ';'" in lines[-1] and len(lines) == 23


def test_spelling_is_compared_among_classes_alone(tmp_path: Path) -> None:
    (tmp_path / "test").mkdir()
    parts = {"dog_bark": ["sed"], "a dog": ["dac"]}
    others = {"dog bark": ["sed"], "A dog": ["dac"]}
    one, other = (
        write(folder, *({"tasks": tasks, "events": [EVENT | {"label": label}]} for label, tasks in labels.items()))
        for folder, labels in ((tmp_path, parts), (tmp_path / "test", others))
    )
    (note,) = label_notes(one, other, ["sed", "dac"])
    assert "dog_bark" in note and "A dog" not in note


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"config\.json: no such file"):
        ModelLimits.of_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json: not valid JSON"):
        ModelLimits.of_checkpoint(tmp_path)


def test_limits_of_both_families_are_read_from_their_files(tiny_checkpoint: Path, tiny_qwen2_audio: Path) -> None:
    for folder in (tiny_checkpoint, tiny_qwen2_audio):
        limits = ModelLimits.of_checkpoint(folder)
        assert limits.layout == Processor(folder).layout and isinstance(limits.layout, AstpLayout)
        assert limits.seconds == 30.0


def test_no_torch_is_loaded_for_it() -> None:
    code = "import sys, timepro.checks.samples; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
