"""TRL's GRPO on what `peers.py` prepared; runs in TRL's own environment, started by `peers.py`.

TRL trains on text, so it gets the thinker's decoder as a text model, on prompts of the same tokens as the others'.
`frames` (what is timed): each audio token is a word of its own whose embedding is the frame that the encoder made of
the clip. So TRL hears what the others hear, answers as they do, and is spared features and encoder. `text`: the very
token ids of the others; it hears nothing, and its answers soon have two tokens. `audio`: the thinker, with the audio
as a part of the message: the audio encoder's calls are counted.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset  # type: ignore[import-not-found]
from peers_steps import StepClock
from peers_task import ANSWERS, AUDIO, LEARNING_RATE, PROMPTS, QUESTION, TOKENS, in_order, read_lines
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoProcessor, AutoTokenizer, Qwen2_5OmniThinkerForConditionalGeneration, Qwen2ForCausalLM
from trl import GRPOConfig, GRPOTrainer  # type: ignore[import-not-found]


def reward(completions: list[Any], wanted: list[str], **_: Any) -> list[float]:
    """One number a completion, which is a text or a conversation."""
    texts = [answer if isinstance(answer, str) else answer[0]["content"] for answer in completions]
    return [in_order(answer, right) for answer, right in zip(texts, wanted, strict=True)]


def main() -> None:
    """Train as the job on the command line says."""
    job = json.loads(sys.argv[1])
    folder, batch = Path(job["folder"]), job["batch"]
    settings = GRPOConfig(
        output_dir=job["output"], per_device_train_batch_size=batch,
        gradient_accumulation_steps=PROMPTS * ANSWERS // batch, num_generations=ANSWERS, max_completion_length=TOKENS,
        temperature=1.0, top_k=0, beta=0.0, loss_type="dapo", epsilon_high=0.28, mask_truncated_completions=True,
        gradient_checkpointing=False, bf16=False, use_cpu=True, learning_rate=LEARNING_RATE, adam_beta2=0.98,
        weight_decay=0.0, lr_scheduler_type="constant", max_steps=job["steps"], logging_steps=1, save_strategy="no",
        report_to="none", disable_tqdm=True, seed=job["seed"],
    )  # fmt: skip
    model, tokens, prompts = MODELS[job["kind"]](folder)
    trainer = GRPOTrainer(
        model, reward, settings, Dataset.from_list(prompts), processing_class=tokens,
        callbacks=[StepClock(Path(job["result"]), job["seconds"])],
    )  # fmt: skip
    trainer.train()


class WordsAndFrames(nn.Module):
    """Embeddings of a text model's words, and behind them encoded audio frames, which are not trained.

    Args:
        words: the model's own embeddings, (V, H).
        frames: of all clips, (F, H).
    """

    frames: Tensor

    def __init__(self, words: nn.Embedding, frames: Tensor) -> None:
        super().__init__()
        self.words = words
        self.register_buffer("frames", frames)

    def forward(self, ids: Tensor) -> Tensor:
        """Token ids (B, T), from V on frames; returns (B, T, H)."""
        first = self.words.num_embeddings
        heard = ids >= first
        embedded = self.words(ids.masked_fill(heard, 0))
        frames = self.frames[(ids - first).clamp(min=0)]
        return torch.where(heard[..., None], frames, embedded)


def text_model(folder: Path) -> tuple[Any, Any, list[dict[str, Any]]]:
    """The thinker's decoder, its tokenizer, and prompts whose text is tokenised to the other systems' ids."""
    thinker = thinker_of(folder)
    config = thinker.config.text_config.to_dict()
    for name in ("model_type", "architectures", "layer_types"):
        config.pop(name, None)
    kind = Qwen2ForCausalLM.config_class(**config)
    model = Qwen2ForCausalLM(kind)
    weights = {n: w for n, w in thinker.state_dict().items() if n.startswith(("model.", "lm_head."))}
    model.load_state_dict(weights)
    tokenizer = AutoTokenizer.from_pretrained(folder / "checkpoint", config=kind)
    lines = read_lines(folder / "prompts.jsonl")
    for line in lines:
        if tokenizer(line["text"])["input_ids"] != line["token_ids"]:
            raise ValueError(f"{line['id']}: TRL's tokenizer gives other token ids than the rollout workers get")
    return model, tokenizer, [{"prompt": line["text"], "wanted": line["wanted"]} for line in lines]


def frames_model(folder: Path) -> tuple[Any, Any, list[dict[str, Any]]]:
    """The same, with a word for every frame of every clip."""
    model, tokenizer, prompts = text_model(folder)
    frames = load_file(folder / "frames.safetensors")["frames"]
    words = model.get_input_embeddings()
    unused = [f"<unused {number}>" for number in range(words.num_embeddings - len(tokenizer))]
    names = [f"<frame {number}>" for number in range(len(frames))]
    tokenizer.add_tokens([*unused, *names])
    if tokenizer.convert_tokens_to_ids(names[-1]) != words.num_embeddings + len(frames) - 1:
        raise ValueError("the tokenizer gives frames other ids than the embeddings do")
    model.set_input_embeddings(WordsAndFrames(words, frames))
    given = iter(names)
    for prompt in prompts:
        first, *others = prompt["prompt"].split(AUDIO)
        prompt["prompt"] = first + "".join(next(given) + part for part in others)
    return model, tokenizer, prompts


def audio_model(folder: Path) -> tuple[Any, Any, list[dict[str, Any]]]:
    """The thinker, its processor, and messages with the audio as a part."""
    processor = AutoProcessor.from_pretrained(folder / "checkpoint")
    prompts = []
    for line in read_lines(folder / "prompts.jsonl"):
        parts = [{"type": "audio", "audio": line["audio"]}, {"type": "text", "text": QUESTION}]
        prompts.append({"prompt": [{"role": "user", "content": parts}], "wanted": line["wanted"]})
    thinker = thinker_of(folder)
    thinker.base_model_prefix = "model"  # where TRL finds the decoder to train; as published, it fails to
    return thinker, processor, prompts


MODELS = {"frames": frames_model, "text": text_model, "audio": audio_model}


def thinker_of(folder: Path) -> Any:
    """The checkpoint's thinker in float32."""
    return Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(folder / "checkpoint", dtype=torch.float32)


if __name__ == "__main__":
    main()
