"""Tasks: what is asked of a clip, which answer is right, and how answers are judged. One object a task.

- `sed`, sound event detection: every event of a closed set of classes.
- `ag`, audio grounding: all intervals of one described sound.
- `dac`, dense audio captioning: a sentence for every event.

Another one is a subclass of `Task` in a module of yours, named `module:Class` wherever a task is named.
"""

from __future__ import annotations

from timepro.tasks.base import Column, Sample, Task
from timepro.tasks.registry import available_tasks, find_task, register

__all__ = ["Column", "Sample", "Task", "available_tasks", "find_task", "register"]
