"""`timepro init-model`: a published checkpoint with timestamps in its tokenizer, its embeddings and its configuration.

Weights are streamed from file to file (`timepro.checkpoints`), so a 7B checkpoint needs little memory.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from timepro.astp import CONFIG_KEY, AstpLayout
from timepro.chat import prompt_ids
from timepro.checkpoints import (
    INDEX_FILE,
    Change,
    StoredTensor,
    copy_others,
    read_header,
    rewrite,
    weight_files,
    with_rows,
)
from timepro.embeddings import (
    SEMANTIC,
    count_distinct,
    initial_timestamps,
    padded_rows,
    semantic_means,
    subwords_of,
)
from timepro.families import ModelFamily, family_of
from timepro.system.files import whole_folder
from timepro.timestamps import INITIALISATIONS, TimestampVocabulary, vocabulary_of

_TIMESTAMP = re.compile(r"<\d+(\.\d+)?>|<\d+|\.\d+>")  # a token of any style
# Written anew: an old one beside a new one could be read in its place.
_TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "added_tokens.json",
    "special_tokens_map.json",
)  # fmt: skip
_TEMPLATE_FILE = "chat_template.json"  # the processor's; a newer `chat_template.jinja` the tokenizer reads itself
_GENERATION_FILE = "generation_config.json"
_SCALE_ROWS = 4096  # rows whose spread stands for all embeddings'
Say = Callable[[str], None]


@dataclass(frozen=True)
class TimestampSettings:
    """What is added to a checkpoint. The values are those of `AstpLayout`; `init` is one of `INITIALISATIONS`.

    enabled: False keeps timestamps out of prompts, and leaves them to the answers.
    style: "table" or "factorised", the vocabulary's (`timepro.timestamps`).
    head: how their rows in an untied head start: "digits", the mean of the digits' rows, or "embeddings", their own
        embeddings, for a model whose head began as a copy of its embeddings.
    """

    stride: float = 0.04
    duration: float = 30.0
    every: int = 1
    position: str = "after"
    answer_style: str = "digits"
    init: str = "semantic"
    seed: int = 0
    enabled: bool = True
    head: str = "digits"
    style: str = "table"


def init_model(source: Path, target: Path, settings: TimestampSettings, say: Say = print) -> None:
    """Write a checkpoint folder that transformers, vLLM and this project load.

    Args:
        source: folder of a published checkpoint of a supported family, or of a Qwen2.5-Omni thinker alone.
        target: made here, complete or not at all.

    Raises:
        ValueError: the target exists, the source is no such checkpoint, or it has other timestamps already.
    """
    if target.exists():
        raise ValueError(f"{target} exists already; give another folder, or remove it first")
    if settings.head not in ("digits", "embeddings"):
        raise ValueError(f"head is {settings.head!r}; it must be digits or embeddings")
    if settings.init not in INITIALISATIONS:
        raise ValueError(f"init is {settings.init!r}; it must be one of {', '.join(INITIALISATIONS)}")
    family = family_of(source, source=True)
    files = weight_files(source)
    vocabulary = vocabulary_of(settings.style, settings.stride, settings.duration)
    tokenizer, known = _extended_tokenizer(source, family, vocabulary, say)
    config = family.whole_config(json.loads((source / "config.json").read_text(encoding="utf-8")))
    with whole_folder(target) as partial:
        copy_others(source, partial, but=("config.json", _GENERATION_FILE, *_TOKENIZER_FILES, _TEMPLATE_FILE))
        tokenizer.save_pretrained(partial)
        matrices = _find(files, family)
        first = tokenizer.convert_tokens_to_ids(vocabulary.tokens()[0])
        n_rows = max(padded_rows(len(tokenizer)), matrices[family.embedding_name].shape[0])
        if known:
            _report_distinct(matrices[family.embedding_name].rows(range(first, first + vocabulary.size)), say)
        changes = {} if known else _new_rows(matrices, family, n_rows, tokenizer, vocabulary, settings, say)
        _write_weights(files, partial, family, changes, say)
        layout = _layout(settings, tokenizer, vocabulary, n_rows)
        config = with_timestamps(config, family, layout, n_rows, tied=family.head_name not in matrices)
        (partial / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
        _write_generation_config(source, partial, tokenizer, say)
    say(f"wrote {target}; train it with model.path={target}")


def _extended_tokenizer(
    source: Path, family: ModelFamily, vocabulary: TimestampVocabulary, say: Say
) -> tuple[Any, bool]:
    """The tokenizer with timestamps, and whether it had them already."""
    from tokenizers import AddedToken
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(source), local_files_only=True)
    wanted = vocabulary.tokens()
    present = sorted(token for token in tokenizer.get_added_vocab() if _TIMESTAMP.fullmatch(token))
    if present and set(present) != set(wanted):
        raise ValueError(
            f"{source}: its tokenizer already has {len(present)} timestamp tokens ({present[0]} to {present[-1]}), not "
            f"the {len(wanted)} of style {vocabulary.style}, stride {vocabulary.stride} and duration "
            f"{vocabulary.duration}; give its own, or start from the published checkpoint"
        )
    turn_end = family.tokens.turn_end
    if turn_end in tokenizer.get_vocab() and tokenizer.eos_token != turn_end:
        say(f"answers end with {turn_end}; the tokenizer's eos_token was {tokenizer.eos_token}")
        tokenizer.eos_token = turn_end
    if tokenizer.pad_token is None:
        tokenizer.pad_token = family.tokens.end_of_text
    _take_chat_template(source, tokenizer, family, say)
    if not present:
        tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in wanted])
    ids = tokenizer.convert_tokens_to_ids(wanted)
    if ids != list(range(ids[0], ids[0] + len(ids))):
        raise ValueError(
            f"{source}: its tokenizer has timestamp tokens ({wanted[0]} to {wanted[-1]}) in another order, or as "
            "ordinary tokens; start from another checkpoint, or take the other --style"
        )
    if present:
        say(f"the tokenizer has these {len(wanted)} timestamps already; their embeddings are kept")
    else:
        say(f"added {len(wanted)} timestamps, {wanted[0]} to {wanted[-1]}, as tokens {ids[0]} to {ids[-1]}")
    return tokenizer, bool(present)


def _take_chat_template(source: Path, tokenizer: Any, family: ModelFamily, say: Say) -> None:
    """Give the tokenizer the chat template of the checkpoint's processor, where that has one in a file of its own.

    The target gets one template, the tokenizer's, which the processor reads too.

    Raises:
        ValueError: neither has one that writes a clip, or the processor's file is damaged.
    """
    path = source / _TEMPLATE_FILE
    if path.is_file():
        try:
            template = json.loads(path.read_text(encoding="utf-8"))["chat_template"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path}: no chat template under the key 'chat_template' ({error!r}); fetch it again"
            ) from None
        if tokenizer.chat_template != template:
            kept = "the tokenizer has none" if tokenizer.chat_template is None else "the tokenizer's own is left out"
            say(f"prompts follow {_TEMPLATE_FILE}; {kept}")
        tokenizer.chat_template = template
    if tokenizer.chat_template is None:
        raise ValueError(
            f"{source}: no chat template in tokenizer_config.json, chat_template.jinja or {_TEMPLATE_FILE}; fetch the "
            "published folder whole, or write one into chat_template.jinja"
        )
    prompt_ids(tokenizer, family.tokens, "When?")


def _find(files: Iterable[Path], family: ModelFamily) -> dict[str, StoredTensor]:
    """The embeddings and, where it is a matrix of its own, the head; by their published names."""
    found = {}
    for path in files:
        tensors, _ = read_header(path)
        for name, tensor in tensors.items():
            if family.kept_name(name) in (family.embedding_name, family.head_name):
                found[str(family.kept_name(name))] = tensor
    if family.embedding_name not in found:
        raise ValueError(
            f"{next(iter(files)).parent}: no tensor {family.embedding_name}; not a {family.name} checkpoint"
        )
    return found


def _new_rows(
    matrices: dict[str, StoredTensor],
    family: ModelFamily,
    n_rows: int,
    tokenizer: Any,
    vocabulary: TimestampVocabulary,
    settings: TimestampSettings,
    say: Say,
) -> dict[str, Change]:
    """Rows for the timestamps in embeddings and head, by the tensors' names in their files.

    By default the head's rows start as the mean of the digits' rows also where the embeddings start random or smooth:
    a new token is then about as likely as the digits that it stands for, and neither certain nor impossible.
    """
    first = tokenizer.convert_tokens_to_ids(vocabulary.tokens()[0])
    subwords = subwords_of(tokenizer, vocabulary, settings.init)
    changes = {}
    for name, tensor in matrices.items():
        if name == family.head_name and settings.head == "digits":
            rows = SEMANTIC.get(settings.init, semantic_means)(subwords, tensor.rows)
        else:
            rows = _embedding_rows(matrices[family.embedding_name], subwords, tokenizer, vocabulary, settings)
        changes[tensor.name] = with_rows(tensor, n_rows, {first + i: row for i, row in enumerate(rows)})
        say(f"{name}: {tensor.shape[0]} to {n_rows} rows of {tensor.shape[1]}")
        if name == family.embedding_name:
            pieces = f", from {len({i for ids in subwords for i in ids})} subwords" if settings.init in SEMANTIC else ""
            say(f"timestamp embeddings start {settings.init}{pieces}")
            _report_distinct(rows, say)
    return changes


def _embedding_rows(
    stored: StoredTensor,
    subwords: list[list[int]],
    tokenizer: Any,
    vocabulary: TimestampVocabulary,
    settings: TimestampSettings,
) -> Tensor:
    """(n, H): how the timestamps' embeddings start; `stored` are the checkpoint's own."""
    if settings.init in SEMANTIC:
        return SEMANTIC[settings.init](subwords, stored.rows)
    sample: Tensor = stored.rows(range(min(_SCALE_ROWS, stored.shape[0])))
    generator = torch.Generator().manual_seed(settings.seed)
    return initial_timestamps(sample, tokenizer, vocabulary, settings.init, generator)


def _report_distinct(rows: Tensor, say: Say) -> None:
    """Say how many timestamp tokens have an embedding of their own: (n, H)."""
    distinct = count_distinct(rows)
    hint = "" if distinct == len(rows) else (
        ": the others equal another's, and stay so, being frozen; --init semantic_ordered gives each its own"
    )  # fmt: skip
    say(f"{distinct} of {len(rows)} timestamp embeddings are distinct{hint}")


def _write_weights(files: list[Path], target: Path, family: ModelFamily, changes: dict[str, Change], say: Say) -> None:
    weight_map: dict[str, str] = {}
    total, left_out = 0, 0
    for path in files:
        tensors, _ = read_header(path)
        names = {name: family.kept_name(name) for name in tensors}
        left_out += sum(t.end - t.start for t in tensors.values() if names[t.name] is None)
        written = rewrite(path, target / path.name, {n: c for n, c in changes.items() if n in tensors}, names)
        total += written
        if written:
            weight_map |= {kept: path.name for kept in names.values() if kept is not None}
            say(f"{path.name}: {written / 2**30:.2f} GiB")
    if left_out:
        say(f"left out {left_out / 2**30:.2f} GiB that this project never runs (what answers in speech, for example)")
    if len(files) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (target / INDEX_FILE).write_text(json.dumps(index, indent=1), encoding="utf-8")


def _layout(settings: TimestampSettings, tokenizer: Any, vocabulary: TimestampVocabulary, n_rows: int) -> AstpLayout:
    first = tokenizer.convert_tokens_to_ids(vocabulary.tokens()[0])
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special} - {tokenizer.eos_token_id}
    timestamps = set(range(first, first + vocabulary.size)) if settings.answer_style == "digits" else set()
    named = set(tokenizer.get_vocab().values())
    nameless = {i for i in range(n_rows) if i not in named}  # padding of the matrix
    return AstpLayout(
        enabled=settings.enabled,
        first_token_id=first,
        stride=settings.stride,
        duration=settings.duration,
        every=settings.every,
        position=settings.position,
        banned_token_ids=tuple(sorted(special | timestamps | nameless)),
        answer_style=settings.answer_style,
        style=settings.style,
    )


def with_timestamps(
    config: dict[str, Any], family: ModelFamily, layout: AstpLayout, n_rows: int, tied: bool
) -> dict[str, Any]:
    """The `config.json` to write for a published one; changed in place and returned.

    It says in every part whether head and embeddings share one weight. Published ones leave that out, and defaults
    differ: transformers would keep the head of Qwen2.5-Omni, vLLM drop it without a word.

    Args:
        n_rows: of the embeddings.
        tied: the weight files hold no head of its own.
    """
    text_side, decoder = family.config_parts(config)
    text_side[CONFIG_KEY] = layout.to_config()
    for part in (text_side, decoder):
        if part is decoder or "vocab_size" in part:
            part["vocab_size"] = n_rows
    for part in (config, text_side, decoder):
        part["tie_word_embeddings"] = tied
    config["architectures"] = family.architectures
    return config


def _write_generation_config(source: Path, target: Path, tokenizer: Any, say: Say) -> None:
    """What ends an answer, and nothing else: a published penalty would change greedy answers of other programs."""
    path = source / _GENERATION_FILE
    published = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    tokens = {"eos_token_id": [tokenizer.eos_token_id], "pad_token_id": tokenizer.pad_token_id}
    kept = {"bos_token_id", "transformers_version", *tokens}
    if left_out := [f"{key}={published[key]}" for key in sorted(published.keys() - kept)]:
        say(f"left out of {_GENERATION_FILE}, since answers are trained without it: {', '.join(left_out)}")
    kept_values = {key: value for key, value in published.items() if key in kept}
    (target / _GENERATION_FILE).write_text(json.dumps(kept_values | tokens, indent=2), encoding="utf-8")
