"""The worker's half of the prompt: its processor puts in an audio placeholder's place what the learner lays out."""

from __future__ import annotations

import pytest
from vllm.multimodal.processing import PromptReplacement

from rollout.vllm_models import AstpProcessorMixin
from timepro.astp import AstpLayout, expand_prompt

AUDIO, FIRST = 7, 1000
FRAMES = (26, 103)  # of two clips


class _Processor(AstpProcessorMixin):
    frame_rate = 25.0


@pytest.mark.parametrize("style", ["table", "factorised"])
@pytest.mark.parametrize(("every", "position"), [(1, "after"), (5, "before")])
def test_a_worker_expands_a_clip_as_the_learner_does(style: str, every: int, position: str) -> None:
    layout = AstpLayout(first_token_id=FIRST, style=style, every=every, position=position)
    published = PromptReplacement("audio", [AUDIO], lambda item: [AUDIO] * FRAMES[item])
    ours = _Processor()._interleaved(published, layout)
    for item, frames in enumerate(FRAMES):
        details = ours.replacement(item)
        assert details.full == expand_prompt([AUDIO], [frames], AUDIO, layout, 25.0)
        # Audio frames are merged into the placeholders alone; timestamps stay tokens of the prompt.
        embedded = details.is_embed(details.full).tolist()
        assert embedded == [token == AUDIO for token in details.full] and sum(embedded) == frames
