"""From audio files to what the encoder reads, and prompts to token ids: the learner's half of the processor.

The worker's half is the published processor inside vLLM. Both must see the same numbers, so both get a file's features
from a `ClipReader`, which calls the published extractor and spares it the silence: that one pads every clip to 30 s.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from timepro.astp import AstpLayout, expand_prompt
from timepro.chat import prompt_ids
from timepro.clip_reader import ClipReader
from timepro.families import ModelFamily, family_of
from timepro.feature_cache import CachePlace
from timepro.log_mel import ClipFeatures, log_mel


class Processor:
    """Tokenizer, feature extractor and ASTP layout of one checkpoint folder.

    Args:
        kept: where features of clips are kept on disk, if anywhere.

    Raises:
        ValueError: the folder is not a checkpoint of a supported family.
    """

    def __init__(self, folder: str | Path, kept: CachePlace | None = None) -> None:
        from transformers import AutoTokenizer, WhisperFeatureExtractor

        self.family: ModelFamily = family_of(folder)
        config = self.family.load_config(folder)
        # With the configuration at hand: transformers would else read the whole family's, with a talker that a small
        # vocabulary does not fit, and complain of each of its token ids.
        self.tokenizer: Any = AutoTokenizer.from_pretrained(str(folder), config=config, local_files_only=True)
        self.extractor: Any = WhisperFeatureExtractor.from_pretrained(str(folder), local_files_only=True)
        self._reader = ClipReader(self.extractor, kept)
        self.layout = AstpLayout.from_config(self.family.text_side_config(config))
        self.audio_token_id = self.family.audio_token_id(config)
        self.eos_token_id: int = self.tokenizer.eos_token_id

    def features(self, path: Path) -> Tensor:
        """Log-mel features (128, M + margin) of an audio file, M = 100 a second, rounded up.

        Raises:
            FileNotFoundError: no such file.
            ValueError: one that cannot be read, or that the encoder cannot take, naming it.
        """
        return self._with_margin(self._reader.read(path), f"{path}: ")

    def features_of(self, waveform: np.ndarray) -> Tensor:
        """Log-mel features (128, M + margin) of a waveform (N,) at the encoder's sampling rate.

        The margin is the family's: frames of silence behind the clip, zero beyond the published 30 s.

        Raises:
            ValueError: a clip shorter than one audio frame, or longer than the encoder takes.
        """
        return self._with_margin(log_mel(waveform, self.extractor))

    def _with_margin(self, features: ClipFeatures, named: str = "") -> Tensor:
        n_frames = features.frames(self.extractor.hop_length)
        if self.family.audio_frames(n_frames) < 1:
            raise ValueError(f"{named}the clip has {features.samples} samples, too few for one audio frame")
        kept = torch.tensor(features.mel[:, : n_frames + self.family.mel_margin])
        return nn.functional.pad(kept, (0, n_frames + self.family.mel_margin - kept.shape[1]))

    def prompt_ids(self, question: str, before: str = "", clips: int = 1) -> list[int]:
        """Token ids of a prompt with one audio placeholder a clip: what a worker is sent, which expands it itself.

        Args:
            before, clips: as `timepro.chat.messages` takes them.
        """
        return prompt_ids(self.tokenizer, self.family.tokens, question, before, clips)

    def expanded_prompt(self, question: str, n_frames: int, before: str = "") -> list[int]:
        """Token ids of a prompt with its placeholder expanded, as the worker expands it.

        Args:
            n_frames: F, audio frames of the clip.
            before: text in front of it.

        Returns:
            T token ids, F audio placeholders among them and, with ASTP on, timestamps between those.
        """
        ids = self.prompt_ids(question, before)
        return expand_prompt(ids, [n_frames], self.audio_token_id, self.layout, self.family.frame_rate)

    def answer_ids(self, text: str) -> list[int]:
        """Token ids of an answer, ended by the turn's end."""
        return [*self.tokenizer(text, add_special_tokens=False).input_ids, self.eos_token_id]

    def answer_text(self, token_ids: list[int]) -> str:
        """An answer's text, without its final stop token."""
        ids = token_ids[:-1] if token_ids and token_ids[-1] == self.eos_token_id else token_ids
        return self.tokenizer.decode(ids, skip_special_tokens=False)
