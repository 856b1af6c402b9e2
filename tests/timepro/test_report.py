"""The HTML report: what is in it, and what it does in a browser."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import soundfile

from browser import Browser, chromium
from timepro.cli import main
from timepro.events import Event
from timepro.metrics import event_report
from timepro.plots.class_styles import class_styles
from timepro.report import write_report
from timepro.runs import read_evaluation

CLIPS = 1000
LABELS = ("siren", "dog_bark", "</script><b>glass</b>", "engine & co")


def make_run(folder: Path, hit: float, audio: Path, stages=("sft", "grpo"), clips: int = CLIPS, seed: int = 0) -> Path:
    """A finished run's files; `hit` is how often an event is found."""
    world, rng = np.random.default_rng(1), np.random.default_rng(seed)
    references = []
    for _ in range(clips):
        onsets = np.sort(world.uniform(0, 7, world.integers(0, 4))).round(2).tolist()
        references.append([Event(on, round(on + 0.5, 2), str(world.choice(LABELS))) for on in onsets])
    (folder / "eval").mkdir(parents=True)
    for place, stage in enumerate(stages):
        lines = []
        for i, reference in enumerate(references):
            found = [e for e in reference if rng.random() < hit + 0.2 * place]
            ok = bool(found) or i % 7 > 0
            lines.append(
                {
                    "id": f"clip-{i:04d}", "task": "sed", "question": "What?", "audio": str(audio), "duration": 8.0,
                    "reference": [asdict(e) for e in reference], "answer": f"answer {i}",
                    "events": [asdict(e) for e in found], "ok": ok, "repairs": [],
                }
            )  # fmt: skip
        (folder / "eval" / f"{stage}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    rest = dict.fromkeys(("eb_f1_macro", "precision", "recall", "miou", "r_at_0.5", "r_at_0.7", "r_at_0.9"), 0.123456)
    numbers = {
        stage: {"n": clips, "eb_f1_micro": 0.4 + 0.1 * k, "unparsable": 0.01, "empty": 0.2, **rest}
        for k, stage in enumerate(stages)
    }
    (folder / "summary.json").write_text(json.dumps({"eval": numbers}))
    (folder / "config.yaml").write_text(f"name: {folder.name}\nseed: {seed}\ntask: sed\nrewards: {{name: eb_f1}}\n")
    identity = {"wandb_id": "a", "started": "2026-01-02 03:04:05+0000", "commit": "0123456789ab"}
    (folder / "run.json").write_text(json.dumps(identity))
    steps = [{"step": s, "reward": s / 900, "entropy": 2 - s / 900, "kl": 0.0} for s in range(1, 901)]
    (folder / "metrics.grpo.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
    return folder


@pytest.fixture(scope="module")
def audio(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("audio") / "clip.flac"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 8 * 16000).astype(np.float32), 16000)
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory, audio) -> list[Path]:
    root = tmp_path_factory.mktemp("runs")
    return [make_run(root / "first", 0.4, audio), make_run(root / "second", 0.6, audio, seed=1)]


@pytest.fixture(scope="module")
def page(runs, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(runs, path, audio=8)
    return path


def data_of(page: Path) -> dict:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    return json.loads(text)


def test_the_page_holds_all_clips_and_nothing_from_elsewhere(page, runs) -> None:
    data = data_of(page)
    assert [s["name"] for s in data["systems"]] == ["first: after GRPO", "second: after GRPO"]
    assert len(data["clips"]) == CLIPS
    assert sum(bool(clip["audio"]) for clip in data["clips"]) == 8
    text = page.read_text()
    own = re.sub(r'<script type="application/json".*?</script>', "", text, flags=re.DOTALL)
    assert set(re.findall(r"https?://[^\"' ]+", own)) == {"http://www.w3.org/2000/svg"}  # a name, not an address
    assert "default-src 'none'" in text
    write_report(runs, page.with_name("silent.html"), audio=0)
    assert page.with_name("silent.html").stat().st_size < 20 * 2**20


def test_numbers_are_those_of_the_metric(page, runs) -> None:
    from timepro.metrics.bootstrap import micro_f1, paired_bootstrap
    from timepro.runs import read_counts

    first, second = (read_counts(run / "eval" / "grpo.jsonl")["sed"][1] for run in runs)
    data = data_of(page)
    value, (low, high) = paired_bootstrap(first, second)
    assert data["systems"][1]["gain"]["sed"] == pytest.approx([value, low, high])
    for k, counts in enumerate((first, second)):
        scores = [clip["answers"][k]["score"] for clip in data["clips"]]
        np.testing.assert_allclose(scores, micro_f1(counts), atol=1e-4)
    assert [clip["id"] for clip in data["clips"] if clip["audio"]]
    reward = next(panel for panel in data["curves"] if panel["title"] == "reward")
    assert len(reward["series"][0]["points"]) == 300  # of 900 steps
    assert not any("KL" in panel["title"] for panel in data["curves"])  # all zero: nothing to see


def test_a_refused_steps_infinite_gradient_is_left_out(audio, tmp_path) -> None:
    run = make_run(tmp_path / "run", 0.5, audio, clips=10)
    norms = [float("inf"), 0.5, float("nan"), 0.25]
    steps = [{"step": s, "reward": 0.1, "grad_norm": norm} for s, norm in enumerate(norms, 1)]
    (run / "metrics.grpo.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
    assert main(["report", str(run), "--out", str(tmp_path / "r.html"), "--audio", "0"]) == 0
    panels = {panel["title"]: panel["series"] for panel in data_of(tmp_path / "r.html")["curves"]}
    assert panels["gradient norm"][0]["points"] == [[2, 0.5], [4, 0.25]]


def test_one_run_is_shown_stage_by_stage(runs, tmp_path) -> None:
    assert main(["report", str(runs[0]), "--out", str(tmp_path / "r.html"), "--audio", "0"]) == 0
    assert [s["name"] for s in data_of(tmp_path / "r.html")["systems"]] == ["SFT", "after GRPO"]


def test_runs_are_shown_with_seed_date_commit_and_what_differs(page, runs, audio, tmp_path) -> None:
    first, second = data_of(page)["runs"]
    assert (first["name"], first["seed"], second["seed"]) == ("first", "0", "1")
    assert (first["started"], first["commit"]) == ("2026-01-02 03:04:05+0000", "0123456789ab")
    assert json.loads(first["rewards"]) == {"name": "eb_f1"} and "seed: 0" in first["settings"]
    assert data_of(page)["differences"] == [["seed", "0", "1"]]
    bare = make_run(tmp_path / "first", 0.5, audio)
    (bare / "run.json").unlink()
    (bare / "config.yaml").unlink()
    write_report([bare, runs[0]], tmp_path / "r.html", audio=0)
    of_bare, of_first = data_of(tmp_path / "r.html")["runs"]
    assert (of_bare["seed"], of_bare["started"], of_bare["commit"]) == ("not recorded",) * 3
    assert (of_bare["name"], of_first["name"]) == (str(bare), str(runs[0]))  # two folders of the same name


def test_numbers_by_class_are_those_of_the_metric(page, runs) -> None:
    lines = read_evaluation(runs[1] / "eval" / "grpo.jsonl")
    answers = [line.answer for line in lines]
    expected = event_report([line.reference for line in lines], answers, n_resamples=0)["class_wise"]
    rows = data_of(page)["classes"]
    assert [row["events"] for row in rows] == sorted((row["events"] for row in rows), reverse=True)
    assert {row["label"] for row in rows} == set(expected) == set(LABELS)
    for row in rows:
        of_class = expected[row["label"]]["event_based"]
        assert row["scores"][1] == pytest.approx([of_class["f1"], of_class["precision"], of_class["recall"]], abs=1e-4)
        assert row["events"] == of_class["n_ref"]


def test_a_class_looks_as_in_the_runs_other_pictures(page, runs) -> None:
    looks = data_of(page)["looks"]["labels"]
    styles = class_styles(sorted(LABELS), LABELS).by_label
    assert {label: looks[label][0] for label in LABELS} == {label: styles[label].colour for label in LABELS}


def test_a_moved_run_keeps_its_sound(audio, tmp_path) -> None:
    run = make_run(tmp_path / "here" / "run", 0.5, tmp_path / "gone.flac", clips=3)
    sound = tmp_path / "here" / "data" / "a.flac"
    sound.parent.mkdir()
    sound.write_bytes(audio.read_bytes())
    for stage in ("sft", "grpo"):
        path = run / "eval" / f"{stage}.jsonl"
        path.write_text(path.read_text().replace(str(tmp_path / "gone.flac"), "../data/a.flac"))
    (tmp_path / "here").rename(tmp_path / "there")
    moved = tmp_path / "there" / "run"
    write_report([moved], tmp_path / "r.html", audio=3)
    assert all(clip["audio"] and clip["picture"] for clip in data_of(tmp_path / "r.html")["clips"])


def test_a_pages_default_name_depends_on_the_runs(runs) -> None:
    for folders, name in (([runs[0]], "report.html"), (runs, "report-second.html")):
        assert main(["report", *map(str, folders), "--audio", "0"]) == 0
        assert (runs[0] / name).is_file()


def test_what_cannot_be_compared_is_refused(runs, audio, tmp_path, capsys) -> None:
    other = make_run(tmp_path / "other", 0.5, audio, clips=10)
    for folders, words in (
        ([tmp_path / "gone"], "gone is not a folder"),
        ([tmp_path], "has no evaluation yet"),
        ([runs[0], other], "were tested on other samples"),
    ):
        assert main(["report", *map(str, folders), "--out", str(tmp_path / "r.html")]) == 2
        assert words in capsys.readouterr().err
    lines = (runs[0] / "eval" / "grpo.jsonl").read_text().replace('"reference": []', '"reference": [%s]')
    event = json.dumps(asdict(Event(0.0, 0.5, "siren")))
    (other / "eval" / "grpo.jsonl").write_text(lines.replace("%s", event))
    assert main(["report", str(runs[0]), str(other)]) == 2
    assert re.search(r"have other references of (clip-\d+, ){2}clip-\d+ and \d+ more", capsys.readouterr().err)
    (other / "eval" / "grpo.jsonl").write_text('{"id": 1}\n')
    assert main(["report", str(other)]) == 2
    assert "grpo.jsonl:1: not a line of an evaluation" in capsys.readouterr().err
    assert not (tmp_path / "r.html").exists()


# ---------------------------------------------------------------- in a browser

needs_browser = pytest.mark.skipif(chromium() is None, reason="no Chromium on the PATH")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    one = Browser(tmp_path_factory.mktemp("profile"))
    yield one
    one.close()


@pytest.fixture
def opened(browser, page):
    browser.errors.clear()
    browser.requests.clear()
    browser.open(page.as_uri())
    yield browser
    assert not browser.errors
    assert all(url.startswith(("file:", "data:", "about:")) for url in browser.requests)


def change_of(clip: dict) -> float:
    return clip["answers"][-1]["score"] - clip["answers"][0]["score"]


def shown(browser: Browser) -> list[str]:
    return browser.get("[...document.querySelectorAll('.clip .id')].map((e) => e.textContent)")


def choose(browser: Browser, field: str, value: str) -> None:
    browser.get(
        f"(() => {{ const f = document.getElementById('{field}'); f.value = {json.dumps(value)};"
        "f.dispatchEvent(new Event('input', {bubbles: true})); })()"
    )


@needs_browser
def test_it_opens_sorted_by_change_with_a_first_page(opened, page) -> None:
    clips = data_of(page)["clips"]
    by_id = {clip["id"]: change_of(clip) for clip in clips}
    first = shown(opened)
    assert len(first) == 50
    assert [by_id[i] for i in first] == sorted(by_id.values(), reverse=True)[:50]
    assert opened.get("document.getElementById('count').textContent") == "1000 of 1000 clips, 50 shown"
    opened.get("document.getElementById('more').click()")
    assert len(shown(opened)) == 100
    heads = opened.get("[...document.querySelectorAll('#comparison thead th')].map((e) => e.textContent)")
    assert heads == ["metric", "first: after GRPO", "second: after GRPO"]
    rows = opened.get("[...document.querySelectorAll('#comparison tbody th')].map((e) => e.textContent)")
    assert {"Eb-F1 micro", "Eb-F1 macro", "mIoU", "unparsable", "answers without events", "clips"} <= set(rows)
    named = opened.get("[...document.querySelectorAll('.columns span')].map((e) => e.textContent)")
    assert named == ["clip", *heads[1:], "change", "reference labels", "sound"]
    cells = opened.get("document.querySelectorAll('.clip > button')[0].childElementCount")
    assert cells == len(named)
    assert opened.get("document.querySelectorAll('#curves svg').length") == 2


@needs_browser
def test_it_sorts_and_filters_and_keeps_that_in_its_address(opened, page) -> None:
    clips = data_of(page)["clips"]
    choose(opened, "which", "worse")
    choose(opened, "filter", "dog_bark")
    choose(opened, "sort", "id")
    choose(opened, "order", "up")
    heard = [c for c in clips if any(e[2] == "dog_bark" for e in c["reference"])]
    expected = sorted(clip["id"] for clip in heard if change_of(clip) < 0)
    assert expected and shown(opened) == expected[:50]
    address = opened.get("location.href")
    assert "which=worse" in address and "filter=dog_bark" in address
    opened.open(address)
    assert shown(opened) == expected[:50]


@needs_browser
def test_a_clip_opens_by_keyboard_and_plays_from_an_event(opened, page) -> None:
    clip = next(c for c in data_of(page)["clips"] if c["audio"] and c["reference"])
    onset = clip["reference"][-1][0]
    choose(opened, "filter", clip["id"])
    opened.get("document.querySelector('.clip > button').focus()")
    opened.press("Enter", 13, "\r")
    opened.until("document.querySelector('.clip .body') !== null")
    assert opened.get("document.querySelector('.clip > button').getAttribute('aria-expanded')") == "true"
    bars = "[...document.querySelectorAll('.lane')][1].querySelectorAll('button')"  # below the spectrogram
    assert opened.get(f"{bars}.length") == len(clip["reference"])
    assert opened.get(f"[...{bars}].map((b) => b.textContent)") == [e[2] for e in sorted(clip["reference"])]  # as text
    opened.get(f"{bars}[{len(clip['reference']) - 1}].click()")
    opened.until(f"document.getElementById('player').currentTime > {onset}")
    assert opened.get("document.getElementById('player').currentTime") < onset + 2
    assert opened.get("document.querySelectorAll('b').length") == 0  # a label is text, whatever it says
    ticks = opened.get("[...document.querySelectorAll('.clip .axis span')].map((e) => Number(e.textContent))")
    assert ticks[0] == 0 and ticks[-1] == 8 and len(set(np.diff(ticks).round(6))) == 1
    opened.until("document.querySelector('.clip .picture img').naturalWidth > 0")
    left = "document.querySelector('.clip .{}').getBoundingClientRect().left"
    assert opened.get(left.format("picture")) == pytest.approx(opened.get(left.format("axis")), abs=1)


@needs_browser
@pytest.mark.parametrize("number", [1, 2, 8])
def test_every_table_is_seen_whole_at_1280_pixels(browser, runs, tmp_path, number) -> None:
    folders = [tmp_path / f"rewards=eb_f1_soft,seed={i}" for i in range(number)]
    for folder in folders:
        shutil.copytree(runs[0], folder)
    write_report(folders, tmp_path / "r.html", audio=0)
    browser.call("Emulation.setDeviceMetricsOverride", width=1280, height=900, deviceScaleFactor=1, mobile=False)
    try:
        browser.open((tmp_path / "r.html").as_uri())
        tables = "[...document.querySelectorAll('#runs, #comparison, #classes')]"
        assert browser.get(f"{tables}.map((e) => e.scrollWidth - e.clientWidth)") == [0, 0, 0]
        assert browser.get("document.documentElement.scrollWidth") <= 1280
        assert browser.get("document.querySelectorAll('#comparison td').length") >= 10 * number
    finally:
        browser.call("Emulation.clearDeviceMetricsOverride")


@needs_browser
def test_an_unreadable_answer_is_shown_as_one(opened, page) -> None:
    clip = next(c for c in data_of(page)["clips"] if not c["answers"][1]["ok"])
    choose(opened, "filter", clip["id"])
    assert opened.get("document.querySelectorAll('.clip > button .score')[1].textContent") == "unreadable"
    opened.get("document.querySelector('.clip > button').click()")
    lanes = opened.get("[...document.querySelectorAll('.clip .track.unreadable')].map((e) => e.innerText)")
    assert lanes and all("unreadable answer" in text for text in lanes)


@needs_browser
def test_settings_and_dates_can_be_read(opened) -> None:
    text = opened.get("document.querySelector('#runs').innerText")
    assert "2026-01-02 03:04:05+0000" in text and "0123456789ab" in text
    assert "Settings that differ" in opened.get("document.querySelector('#settings').innerText")
    opened.get("document.querySelector('details').open = true")
    assert "name: first" in opened.get("document.querySelector('details pre').innerText")


@needs_browser
def test_a_link_to_a_clip_opens_it(opened, page) -> None:
    last = sorted(data_of(page)["clips"], key=lambda c: c["id"])[-1]["id"]
    opened.open(f"{page.as_uri()}#sort=id&order=up&clip={last}")
    opened.until("document.querySelector('.clip .body') !== null")
    assert opened.get("document.querySelector('.clip .body').parentElement.id") == f"clip-{last}"


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_in_light_and_dark(opened, page, scheme) -> None:
    opened.call("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=2, mobile=True)
    opened.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    try:
        opened.open(page.as_uri())
        opened.get("document.querySelector('.clip > button').click()")
        assert opened.get("document.documentElement.scrollWidth") <= 360
        red = opened.get("Number(getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0])")
        assert (red > 128) == (scheme == "light")
    finally:
        opened.call("Emulation.clearDeviceMetricsOverride")
        opened.call("Emulation.setEmulatedMedia", features=[])


@needs_browser
def test_without_sound_in_the_page_a_clip_says_where_it_is(opened, page) -> None:
    clip = next(c for c in data_of(page)["clips"] if not c["audio"])
    choose(opened, "filter", clip["id"])
    opened.get("document.querySelector('.clip > button').click()")
    assert clip["path"] in opened.get("document.querySelector('.clip .silent').textContent")
