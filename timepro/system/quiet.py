"""Commands that ask a checkpoint print their own lines alone."""

from __future__ import annotations

import os


def quiet_transformers() -> None:
    """Let transformers fetch nothing and show no progress bars and remarks, here and in processes started from here.

    It reads these variables when it is first imported, so call this before.
    """
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
