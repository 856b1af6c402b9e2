"""What a restart needs: open events, cool-downs, messages that may not have reached their queues, the folder's place.

One file, replaced as a whole. It is written before messages go into the queues, and holds them: whatever moment the
process is killed at, either nothing of a change is there, or all of it; and a queue knows a message that it has.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from timepro.inference.monitor.messages import Message
from timepro.system.files import write_json

_VERSION = 1


@dataclass
class State:
    """All times are moments, in seconds since 1970.

    Args:
        trackers: by label: `open` event (`OpenEvent` as a mapping, or None), `quiet_until` and `ended`.
        outbox: messages of the last change.
        lost_since: when the stream was lost; 0 while it is there.
        resume_at: the moment to go on from, of a source that can be read again.
        done: names of files of a folder that were listened to.
    """

    trackers: dict[str, dict[str, Any]] = field(default_factory=dict)
    outbox: list[Message] = field(default_factory=list)
    lost_since: float = 0.0
    resume_at: float = 0.0
    done: list[str] = field(default_factory=list)


def read_state(path: Path) -> State:
    """The state of an earlier start; a new one where there is none.

    Raises:
        ValueError: it cannot be read: remove it to begin anew.
    """
    if not path.is_file():
        return State()
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw.pop("version") != _VERSION:
            raise ValueError("it is of another version")
        return State(**raw)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} cannot be read ({error}); remove it to begin without what was open") from error


def write_state(path: Path, state: State) -> None:
    """Replace the file.

    Raises:
        OSError: no room; the old file is whole.
    """
    write_json(path, {"version": _VERSION, **asdict(state)})
