"""`timepro monitor` in a process of its own with the scripted answerer in place of a model, for tests that kill it."""

from __future__ import annotations

import sys

from scripted_answerer import ScriptedAnswerer
from timepro.commands.monitor import listen
from timepro.inference.monitor.build import Ears
from timepro.inference.monitor.checked import load_settings

if __name__ == "__main__":
    source, takes_s, *overrides = sys.argv[1:]
    try:
        settings = load_settings(None, overrides, {"source": source})
        sys.exit(listen(settings, Ears(ScriptedAnswerer(takes_s=float(takes_s)))))
    except ValueError as error:
        sys.exit(str(error))
