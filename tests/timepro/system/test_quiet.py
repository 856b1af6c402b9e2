"""What commands that ask a checkpoint keep from the user's terminal."""

import subprocess
import sys

PROGRAM = """
from timepro.system.quiet import quiet_transformers
quiet_transformers()
from huggingface_hub import constants
from transformers.utils import logging
print(logging.is_progress_bar_enabled(), logging.get_verbosity() >= logging.ERROR, constants.HF_HUB_OFFLINE)
"""


def test_transformers_shows_no_bar_and_fetches_nothing(monkeypatch) -> None:
    for name in ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_PROGRESS_BARS", "TRANSFORMERS_VERBOSITY"):
        monkeypatch.delenv(name, raising=False)
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == ["False", "True", "True"]
