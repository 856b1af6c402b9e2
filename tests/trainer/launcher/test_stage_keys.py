"""A kept stage is another one as soon as any module that makes it changes, and the same one for all others."""

from __future__ import annotations

from pathlib import Path

import pytest

from timepro.system.source import import_closure, imports_of, module_file
from trainer.launcher import stage_keys
from trainer.launcher.stage_keys import MADE_BY, digest

ROOT = Path(__file__).resolve().parents[3]


def names(stage: str) -> set[str]:
    return {path.relative_to(ROOT).as_posix() for path in import_closure(*MADE_BY[stage])}


@pytest.mark.parametrize("stage", sorted(MADE_BY))
def test_a_change_to_any_module_of_the_closure_is_another_key(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    files = import_closure(*MADE_BY[stage])
    assert len(files) > 3
    before, read = digest({}, files), Path.read_bytes
    for changed in files:
        monkeypatch.setattr(Path, "read_bytes", lambda path, c=changed: read(path) + (b"#" if path == c else b""))
        assert digest({}, files) != before, changed
    monkeypatch.setattr(Path, "read_bytes", read)
    assert digest({}, files) == before


def test_what_a_fine_tuned_checkpoint_is_made_by() -> None:
    found = names("sft")
    # What a list by hand had forgotten, and what nobody imports by name.
    for name in (
        "timepro/data/audio.py", "timepro/timestamps.py", "timepro/data/manifest.py", "timepro/answers/parse.py",
        "timepro/families/qwen2_audio.py", "timepro/tasks/dac.py", "trainer/learner/policy.py", "timepro/astp.py",
    ):  # fmt: skip
        assert name in found, name
    for name in ("trainer/launcher/pipeline.py", "trainer/learner/grpo.py", "rollout/worker.py", "rewards/eb_f1.py"):
        assert name not in found, name


def test_a_closure_follows_imports_inside_functions_and_packages_on_the_way() -> None:
    assert "timepro.data.audio" in imports_of("timepro.log_mel")
    assert module_file("timepro.data") in import_closure("timepro.data.audio")
    with pytest.raises(ValueError, match="timepro.nothing is not a module"):
        import_closure("timepro.nothing")


def test_the_stages_are_the_pipelines() -> None:
    source = (ROOT / "trainer/launcher/pipeline.py").read_text()
    for stage in MADE_BY:
        assert f"{stage}_key(" in source
    assert set(MADE_BY) <= {name.removesuffix("_key") for name in vars(stage_keys) if name.endswith("_key")}
