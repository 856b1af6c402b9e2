"""Loaded by every Python process of a run under test: says where a learner rank is, and lingers there on demand.

Nothing in the product knows of it. TIMEPRO_TEST_MARKS is a folder: a rank that enters a phase touches `PHASE.STEP.RANK`
in it, and stays for two seconds where a file `linger.PHASE.STEP` asks it to, so that a test can hit the phase.
"""

import importlib.abc
import importlib.util
import os
import sys
import time
from pathlib import Path

_FOLDER = os.environ.get("TIMEPRO_TEST_MARKS")
_LINGER_S = 2.0


def _mark(phase, step):
    from trainer.learner import distributed

    (Path(_FOLDER) / f"{phase}.{step}.{distributed.rank()}").touch()
    if (Path(_FOLDER) / f"linger.{phase}.{step}").exists():
        time.sleep(_LINGER_S)


def _patch_sender(module):
    announce = module.WeightSender._announce
    gather = module.WeightSender._gather

    def announced(self, line, more):
        self._version = line.version
        return announce(self, line, more)

    def gathered(self, bucket, wanted):
        if wanted:  # the workers wait for this bucket
            _mark("sync", self._version)
        return gather(self, bucket, wanted)

    module.WeightSender._announce, module.WeightSender._gather = announced, gathered


def _patch_rollouts(module):
    answered, score = module.GroupSampler._answered, module.GroupSampler.score_asked

    def marked_answered(self, asked, version):
        _mark("generate", asked.step)
        return answered(self, asked, version)

    def marked_score(self, asked):
        self.scored = getattr(self, "scored", 0) + 1
        _mark("score", self.scored - 1)
        return score(self, asked)

    module.GroupSampler._answered, module.GroupSampler.score_asked = marked_answered, marked_score


def _patch_core(module):
    update = module.Learner.update

    def marked(self, *arguments, **named):
        self.updates = getattr(self, "updates", 0) + 1
        _mark("train", self.updates - 1)
        return update(self, *arguments, **named)

    module.Learner.update = marked
    written = module.write_json

    def marked_state(path, state):
        _mark("save", int(path.parent.name.removeprefix("step-")))
        written(path, state)

    module.write_json = marked_state


_PATCHES = {
    "trainer.learner.sender": _patch_sender,
    "trainer.learner.groups": _patch_rollouts,
    "trainer.learner.learner": _patch_core,
}


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        patch = _PATCHES.pop(name, None)
        if patch is None:
            return None
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            patch(module)

        spec.loader.exec_module = exec_module
        return spec


if _FOLDER:
    sys.meta_path.insert(0, _Finder())
