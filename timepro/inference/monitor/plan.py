"""What a monitor would do, for `--dry-run`."""

from __future__ import annotations

from pathlib import Path

from timepro.config.saved import to_yaml
from timepro.inference.monitor.build import build_sinks, listened_labels
from timepro.inference.monitor.checked import rules_of
from timepro.inference.monitor.feeds import source_kind
from timepro.inference.monitor.messages import without_password
from timepro.inference.monitor.settings import MonitorSettings


def plan(settings: MonitorSettings, checkpoint: Path, known: tuple[str, ...]) -> str:
    """The settings in full, and in words what follows from them."""
    window, gate = settings.window, settings.gate
    labels = listened_labels(settings, known)
    folder = Path(settings.folder)
    lines = [
        to_yaml(settings).replace(settings.source, without_password(settings.source)) if settings.source else "",
        f"listens to    {without_password(settings.source)} ({source_kind(settings.source)})",
        f"with          {checkpoint}",
        f"windows of    {f'{window.length_s:g} s' if window.length_s else 'the length it was trained on'}, "
        f"a new one every {f'{window.hop_s:g} s' if window.hop_s else 'half of that'}",
        f"asks nothing  below {gate.level_db:g} dB"
        + (f", or {gate.above_background_db:g} dB above the background" if gate.above_background_db else ""),
        "listens for   " + (", ".join(labels) or "every label"),
    ]
    for label in labels:
        rules = rules_of(settings, label, None, lambda position: position)
        own = settings.labels.get(label)
        named = (own is not None and own.threshold is not None) or settings.rules.threshold is not None
        threshold = f"{rules.threshold:g}" if named or label == settings.loud.label else "the checkpoint's"
        schedule = (own.schedule if own is not None and own.schedule is not None else settings.rules.schedule) or []
        lines.append(
            f"  {label}: confidence {threshold}, at least {rules.min_duration_s:g} s, ends after "
            f"{rules.max_not_heard_s:g} s, then quiet for {rules.cool_down_s:g} s; {', '.join(schedule) or 'always'}"
        )
    names = [sink.name for sink in build_sinks(settings, folder, labels)]
    lines.append(f"tells         {', '.join(names) or 'nobody: no receiver is set (sinks)'}")
    lines.append(f"keeps         clips, queues and state in {folder}/")
    page = settings.page
    lines.append(f"page          http://{page.host}:{page.port}/" if page.port else "page          none (--page PORT)")
    return "\n".join(lines)
