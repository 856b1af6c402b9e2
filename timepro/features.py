"""From audio files to what the encoder reads, and prompts to token ids: the learner's half of the processor.

The worker's half is the published processor inside vLLM. Both must see the same numbers, so this one calls the same
feature extractor and only spares it the silence: the published one pads every clip to 30 s.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from timepro.astp import AstpLayout, expand_prompt
from timepro.chat import prompt_ids
from timepro.data.audio import read_audio
from timepro.families import ModelFamily, family_of


class Processor:
    """Tokenizer, feature extractor and ASTP layout of one checkpoint folder.

    Raises:
        ValueError: the folder is not a checkpoint of a supported family.
    """

    def __init__(self, folder: str | Path) -> None:
        from transformers import AutoTokenizer, WhisperFeatureExtractor

        self.family: ModelFamily = family_of(folder)
        config = self.family.load_config(folder)
        # With the configuration at hand: transformers would else read the whole family's, with a talker that a small
        # vocabulary does not fit, and complain of each of its token ids.
        self.tokenizer: Any = AutoTokenizer.from_pretrained(str(folder), config=config, local_files_only=True)
        self.extractor: Any = WhisperFeatureExtractor.from_pretrained(str(folder), local_files_only=True)
        self.layout = AstpLayout.from_config(self.family.text_side_config(config))
        self.audio_token_id = self.family.audio_token_id(config)
        self.eos_token_id: int = self.tokenizer.eos_token_id

    def features(self, path: Path) -> Tensor:
        """Log-mel features (128, M + margin) of an audio file, M = 100 a second, rounded up."""
        return self.features_of(read_audio(path, self.extractor.sampling_rate))

    def features_of(self, waveform: np.ndarray) -> Tensor:
        """Log-mel features (128, M + margin) of a waveform (N,) at the encoder's sampling rate.

        The margin is the family's: frames of silence behind the clip, zero beyond the published 30 s.

        Raises:
            ValueError: a clip shorter than one audio frame.
        """
        hop, window, most = self.extractor.hop_length, self.extractor.n_fft, self.extractor.n_samples
        n_frames = -(-len(waveform) // hop)
        if n_frames < 2 or self.family.audio_frames(n_frames) < 1:
            raise ValueError(f"the clip has {len(waveform)} samples, too few for one audio frame")
        if len(waveform) > most:
            raise ValueError(
                f"the clip has {len(waveform) / self.extractor.sampling_rate:.2f} s, more than the encoder's "
                f"{most / self.extractor.sampling_rate:.0f} s, where the published processor drops the rest; cut it"
            )
        # One window of silence behind the clip is what the published padding to 30 s amounts to. It ends where that
        # padding ends, since the extractor mirrors what stands there.
        padded = np.zeros(min(most, (n_frames + 1) * hop + window), np.float32)
        padded[: len(waveform)] = waveform
        mel = self.extractor(
            padded,
            sampling_rate=self.extractor.sampling_rate,
            padding="do_not_pad",
            truncation=False,
            return_tensors="pt",
        ).input_features[0]
        kept = mel[:, : n_frames + self.family.mel_margin]
        return nn.functional.pad(kept, (0, n_frames + self.family.mel_margin - kept.shape[1]))

    def prompt_ids(self, question: str) -> list[int]:
        """Token ids of a prompt with one audio placeholder: what a worker is sent, which expands it itself."""
        return prompt_ids(self.tokenizer, self.family.tokens, question)

    def expanded_prompt(self, question: str, n_frames: int) -> list[int]:
        """Token ids of a prompt with its placeholder expanded, as the worker expands it.

        Args:
            n_frames: F, audio frames of the clip.

        Returns:
            T token ids, F audio placeholders among them and, with ASTP on, timestamps between those.
        """
        ids = self.prompt_ids(question)
        return expand_prompt(ids, [n_frames], self.audio_token_id, self.layout, self.family.frame_rate)

    def answer_ids(self, text: str) -> list[int]:
        """Token ids of an answer, ended by the turn's end."""
        return [*self.tokenizer(text, add_special_tokens=False).input_ids, self.eos_token_id]

    def answer_text(self, token_ids: list[int]) -> str:
        """An answer's text, without its final stop token."""
        ids = token_ids[:-1] if token_ids and token_ids[-1] == self.eos_token_id else token_ids
        return self.tokenizer.decode(ids, skip_special_tokens=False)
