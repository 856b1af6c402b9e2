"""A monitor's YAML: every fault is told at the start, by key."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from timepro.config.keys import by_key
from timepro.inference.monitor.checked import check_labels, load_settings, rules_of
from timepro.inference.monitor.example import EXAMPLE
from timepro.inference.monitor.settings import MonitorSettings


def load(folder: Path, text: str, *overrides: str) -> MonitorSettings:
    path = folder / "monitor.yaml"
    path.write_text(text)
    return load_settings(path, overrides, {})


def test_the_file_overrides_and_options_are_laid_over_each_other(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text("source: mic\nrules: {cool_down_s: 5}\nlabels:\n  glass: {threshold: 0.7}\n  bark: {}\n")
    settings = load_settings(path, ["rules.min_duration_s=0.2", "labels.glass.threshold=0.6"], {"source": "-"})
    assert settings.source == "-"
    rules = rules_of(settings, "glass", 0.3, lambda position: position)
    assert (rules.threshold, rules.cool_down_s, rules.min_duration_s, rules.max_not_heard_s) == (0.6, 5, 0.2, 5)
    assert rules_of(settings, "bark", 0.3, lambda position: position).threshold == 0.3  # the checkpoint's own
    assert rules_of(settings, "bark", None, lambda position: position).threshold == 0.5


def test_a_schedule_of_a_label_is_read_in_the_time_zone_of_the_settings(tmp_path: Path) -> None:
    text = "time_zone: Asia/Tokyo\nrules: {schedule: ['09:00-10:00']}\nlabels: {bark: {schedule: []}}\n"
    settings = load(tmp_path, text)
    half_past_nine = 1782693000.0  # 2026-06-29 in Tokyo
    inside = rules_of(settings, "glass", None, lambda position: half_past_nine + position).in_schedule
    assert inside(0) and not inside(3600)
    assert rules_of(settings, "bark", None, lambda position: half_past_nine + position).in_schedule(3600)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sourc: mic", r"monitor.yaml:1: unknown key sourc \(did you mean source"),
        ("gate: {leveldb: -50}", r"unknown key gate.leveldb \(did you mean gate.level_db"),
        ("labels: {glass: {treshold: 1}}", r"in labels.glass: unknown key treshold \(did you mean threshold"),
        ("sinks: {webhooks: [{ur: x}]}", r"in sinks.webhooks.0: unknown key ur \(did you mean url"),
        ("sinks: {webhooks: [{name: x}]}", "url"),
        ("sinks: {webhooks: [{url: example.org}]}", "sinks.webhooks.0.url: 'example.org' is not an address"),
        ("sinks: {webhooks: [{url: 'http://h', secret_env: NOT_SET_X}]}", "variable NOT_SET_X is not set"),
        ("sinks: {commands: [{run: [no-such-program-x]}]}", "there is no program 'no-such-program-x'"),
        ("sinks: {mqtt: {topic: 'a/#'}}", "topic and discovery"),
        ("labels: {glass: {threshold: 1.5}}", "out of range; it must be at least 0 and at most 1"),
        ("rules: {schedule: [fry]}", "rules.schedule: 'fry': 'fry' is not a day"),
        ("time_zone: Europe/Berln", "did you mean Europe/Berlin"),
        ("page: {port: 8080, host: 0.0.0.0}", "needs a token of at least 16 characters"),
        ("name: a/b", "it names topics"),
        ("window: {length_s: 2, hop_s: 3}", "would not be heard"),
        ("a: [", "not valid YAML"),
    ],
)
def test_what_cannot_work_is_refused_by_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(tmp_path, text)


def test_labels_that_the_checkpoint_cannot_say_are_refused_with_near_names(tmp_path: Path) -> None:
    settings = load(tmp_path, "labels: {glas_breaking: {}, loud_sound: {}}\nloud: {level_db: -20}\n")
    with pytest.raises(ValueError, match=r"'glas_breaking' \(did you mean glass_breaking"):
        check_labels(settings, ["glass_breaking", "dog_bark"])
    check_labels(settings, [])  # a checkpoint that takes any label


def test_a_source_is_shown_without_its_password() -> None:
    from timepro.inference.monitor.messages import without_password

    assert without_password("rtsp://user:pass@cam:554/a?token=x") == "rtsp://cam:554/a"
    assert without_password("http://[::1]:80/a") == "http://[::1]:80/a"
    assert without_password("recordings/in") == "recordings/in"


def test_the_example_holds_every_key_with_its_default(tmp_path: Path) -> None:
    settings = load(tmp_path, EXAMPLE)
    plain = MonitorSettings()
    for label in ("any", "loud_sound"):
        written, built_in = (rules_of(one, label, None, float) for one in (settings, plain))
        assert replace(written, in_schedule=built_in.in_schedule) == built_in
    assert replace(settings, rules=plain.rules) == plain

    def keys(value: object, prefix: str = "") -> set[str]:
        if not isinstance(value, dict) or not value:
            return {prefix}
        return {found for key, inner in value.items() for found in keys(inner, f"{prefix}.{key}")}

    assert keys(yaml.safe_load(EXAMPLE)) == keys(by_key(settings))
    for commented in ("glass_breaking", "dog_bark"):
        assert commented in EXAMPLE
    uncommented = EXAMPLE.replace("\n#  - ", "\n  - ").replace("\n#  ", "\n  ").replace("labels: {}", "labels:")
    uncommented = uncommented.replace("webhooks: []", "webhooks:").replace("commands: []", "commands:")
    with pytest.raises(ValueError, match="WEBHOOK_SECRET is not set"):  # all else of what is commented out is right
        load(tmp_path, uncommented)
