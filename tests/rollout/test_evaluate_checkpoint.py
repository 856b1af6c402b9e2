"""`timepro evaluate --checkpoint`: a model asked and scored, here by transformers in this process (vLLM: tests/e2e)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from reference_models import greedy_answer, load_reference
from rollout.checkpoint_scores import Answers
from sentence_encoder import small_encoder
from timepro.cli import main
from timepro.data.clips import Clip, ManifestEvent, Query
from timepro.data.manifest import write_manifest
from timepro.evaluation import score
from timepro.features import Processor
from timepro.tasks.samples import evaluation_samples


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    clips = []
    for number, seconds in enumerate((1.0, 1.6, 2.0)):
        audio = tmp_path / "audio" / f"{number}.wav"
        audio.parent.mkdir(exist_ok=True)
        noise = np.random.default_rng(number).normal(0, 0.1, round(16000 * seconds))
        soundfile.write(audio, noise.astype(np.float32), 16000)
        events = (ManifestEvent(0.2, 0.6, "siren"),) if number else ()
        clips.append(Clip(f"c{number}", audio, seconds, events, (Query("a siren", ((0.2, 0.6),)),)))
    write_manifest(tmp_path / "test.jsonl", clips)
    return tmp_path / "test.jsonl"


def evaluate(*words: object) -> int:
    return main(["evaluate", "--backend", "transformers", "--max-tokens", "12", *map(str, words)])


def test_the_numbers_are_those_of_the_checkpoints_own_greedy_answers(
    tiny_checkpoint: Path, manifest: Path, tmp_path: Path, capsys
) -> None:
    out = tmp_path / "kept" / "answers.jsonl"
    assert evaluate("--checkpoint", tiny_checkpoint, manifest, "--json", "--out", out) == 0
    told = json.loads(capsys.readouterr().out)
    samples = evaluation_samples(manifest, "sed")
    processor, model = Processor(tiny_checkpoint), load_reference("qwen2_5_omni", tiny_checkpoint)
    texts = [greedy_answer(processor, model, sample, max_tokens=12) for sample in samples]
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["answer"] for line in lines] == texts
    assert told["predictions"] == str(out)
    expected = score(samples, texts).metrics["sed"]
    assert {key: told["tasks"]["sed"][key] for key in expected} == expected
    assert (out.parent / lines[1]["audio"]).resolve() == samples[1].audio.resolve()


def test_the_table_bears_the_checkpoints_name_and_the_answers_are_scored_like_any_predictions(
    tiny_checkpoint: Path, manifest: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    assert evaluate(manifest, "--checkpoint", tiny_checkpoint) == 0
    said = capsys.readouterr().out
    assert "/".join(tiny_checkpoint.parts[-2:]) in said and "95 % from" in said and "3 samples" in said
    (kept,) = tmp_path.glob("answers-*.jsonl")
    assert f"answers      {kept.name}" in said and f"evaluate {kept.name} {manifest}" in said
    assert evaluate("--checkpoint", tiny_checkpoint, manifest, "--max-tokens", "6") == 0
    assert len(list(tmp_path.glob("answers-*.jsonl"))) == 2  # other answers, another file
    capsys.readouterr()
    assert main(["evaluate", kept.name, str(manifest), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["files"]["unanswered"] == 0


def test_drawn_answers_give_psds(tiny_checkpoint: Path, manifest: Path, tmp_path: Path, capsys) -> None:
    pytest.importorskip("sed_scores_eval")
    out = tmp_path / "answers.jsonl"
    words = ("--checkpoint", tiny_checkpoint, manifest, "--samples", "3", "--json", "--out", out)
    assert evaluate(*words) == 0
    told = json.loads(capsys.readouterr().out)
    first = out.read_text()
    lines = [json.loads(line) for line in first.splitlines()]
    assert [len(line["samples"]) for line in lines] == [3, 3, 3]
    assert main(["evaluate", str(out), str(manifest), "--psds", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["psds"] == told["tasks"]["sed"]["psds"]
    assert told["tasks"]["sed"]["drawn"]["n"] == 3
    assert evaluate(*words) == 0 and out.read_text() == first


def test_drawn_answers_of_a_task_without_classes_have_their_mean_and_their_best(
    tiny_checkpoint: Path, manifest: Path, tmp_path: Path, capsys
) -> None:
    words = ("--checkpoint", tiny_checkpoint, manifest, "--task", "ag", "--samples", "2", "--out", tmp_path / "a.jsonl")
    assert evaluate(*words, "--json") == 0
    told = json.loads(capsys.readouterr().out)["tasks"]["ag"]
    assert told["drawn"].keys() == {"of", "n", "mean", "best"} and told["drawn"]["of"] == "miou" and "psds" not in told
    assert evaluate(*words, "--temperature", "0.5") == 0
    said = capsys.readouterr().out
    assert "best of 2" in said and "drawn: mIoU of one of 2 answers a sample at temperature 0.5" in said


def test_controls_of_grounding_have_the_best_single_answer_to_all_questions(
    tiny_checkpoint: Path, manifest: Path, tmp_path: Path, capsys
) -> None:
    words = ("--checkpoint", tiny_checkpoint, manifest, "--task", "ag", "--controls", "--out", tmp_path / "a.jsonl")
    assert evaluate(*words, "--json") == 0
    constant = json.loads(capsys.readouterr().out)["tasks"]["ag"]["controls"]["constant"]
    # The sound is at 0.2 to 0.6 s of clips of 1.0, 1.6 and 2.0 s.
    assert (constant["from"], constant["to"]) == (0.2, 0.6)
    assert constant["miou"] == pytest.approx((1 + 0.28 / 0.76 + 0.2 / 1.0) / 3)
    assert evaluate(*words) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "one answer to all: 20% to 60% of every clip" in said


def test_captions_are_compared_by_a_sentence_encoder(
    tiny_checkpoint: Path, manifest: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    captioned = tmp_path / "captioned.jsonl"
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    for line in lines:
        line["events"] = [event | {"caption": "a dog barks"} for event in line["events"]]
    captioned.write_text("".join(json.dumps(line) + "\n" for line in lines))
    said = {"c0": "none", "c1": "rain 0.20-0.55; a dog barks 0.20-0.60", "c2": "a dog barks 0.40-0.60"}
    monkeypatch.setattr(
        "rollout.checkpoint_scores._backend",
        lambda name: lambda options, samples, *rest: Answers([said[sample.id] for sample in samples], None, []),
    )
    encoder = small_encoder(tmp_path / "encoder")
    capsys.readouterr()  # making it says something
    words = ("--checkpoint", tiny_checkpoint, captioned, "--sentence-encoder", encoder, "--out", tmp_path / "a.jsonl")
    assert evaluate(*words, "--task", "dac", "--json") == 0
    found = json.loads(capsys.readouterr().out)["tasks"]["dac"]["similarity"]
    expected = {"similarity_at_0.3": 1.0, "similarity_at_0.5": 1.0, "similarity_at_0.7": 2 / 3}
    assert found == pytest.approx(expected)  # c2's answer has an IoU of 0.5
    assert evaluate(*words, "--task", "dac") == 0
    table = capsys.readouterr().out
    assert "similarity@0.7" in table and "cosine of sentence embeddings (encoder)" in table
    assert evaluate(*words, "--task", "sed") == 2
    assert "compares captions, and no task has any: sed" in capsys.readouterr().err


def test_several_tasks_are_scored_each_by_its_own_metrics(
    tiny_checkpoint: Path, manifest: Path, tmp_path: Path, capsys
) -> None:
    words = ("--task", "sed", "--task", "ag", "--out", tmp_path / "both.jsonl", "--json")
    assert evaluate("--checkpoint", tiny_checkpoint, manifest, *words) == 0
    told = json.loads(capsys.readouterr().out)["tasks"]
    assert told["sed"]["interval"]["of"] == "eb_f1_micro" and told["ag"]["interval"]["of"] == "miou"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["test.jsonl"], "one file alone: give PREDICTIONS and REFERENCE, or --checkpoint FOLDER"),
        (["a.tsv", "test.jsonl", "--samples", "4"], "--samples needs --checkpoint FOLDER"),
        (["--checkpoint", "CHECKPOINT", "a.tsv", "test.jsonl"], "--checkpoint takes one file, the manifest"),
        (["--checkpoint", "CHECKPOINT", "--psds", "test.jsonl"], "--psds cannot stand beside --checkpoint"),
        (["--checkpoint", "gone", "test.jsonl"], "gone does not exist"),
        (["--checkpoint", "CHECKPOINT", "gone.jsonl"], "gone.jsonl: no such manifest"),
        (["--checkpoint", "CHECKPOINT", "test.jsonl", "--task", "sedd"], "unknown task 'sedd'"),
    ],
)
def test_a_wrong_use_is_named(
    tiny_checkpoint: Path, manifest: Path, tmp_path: Path, monkeypatch, capsys, words, message
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", *(str(tiny_checkpoint) if word == "CHECKPOINT" else word for word in words)]) == 2
    assert message in capsys.readouterr().err


def test_a_clip_that_the_model_cannot_take_is_named_before_anything_is_loaded(
    tiny_checkpoint: Path, tmp_path: Path, capsys
) -> None:
    soundfile.write(tmp_path / "long.wav", np.zeros(16000 * 31, np.float32), 16000)
    write_manifest(tmp_path / "long.jsonl", [Clip("long", tmp_path / "long.wav", 31.0, ())])
    assert evaluate("--checkpoint", tiny_checkpoint, tmp_path / "long.jsonl") == 2
    assert "long.jsonl:1: clip 'long': lasts 31 s" in capsys.readouterr().err
