"""A Whisper encoder and a decoder in one checkpoint: each computes there what it computed alone."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from timepro.cli import main
from timepro.families import ModelFamily, family_of
from timepro.families.parts.tree import PROMPT
from timepro.families.parts.tree_attention import tree_of
from timepro.features import Processor
from timepro.init_model import TimestampSettings, init_model

WIDTH, LAYERS, HEADS, INNER, MELS = 64, 2, 2, 96, 80
TEXT = "when is the siren heard? 1.2 to 3.4"


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Whisper as transformers saves it, with weights that half precision holds exactly."""
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    torch.manual_seed(0)
    config = WhisperConfig(
        num_mel_bins=MELS, d_model=WIDTH, encoder_layers=LAYERS, encoder_attention_heads=HEADS, encoder_ffn_dim=INNER,
        decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=64, vocab_size=100, pad_token_id=0,
        bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    model = WhisperForConditionalGeneration(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = 0.0 if "embed_positions" in name else 0.05 * torch.randn_like(parameter)  # Whisper's are sinusoids
            parameter.copy_((parameter + noise).half())
    folder = tmp_path_factory.mktemp("whisper")
    model.save_pretrained(folder)
    return folder


def ctranslate2_folder(folder: Path, weights: dict[str, torch.Tensor], code: int = 4) -> Path:
    """The encoder as CTranslate2 writes it: fused attention matrices, a zero bias for the key, other variables."""
    at = "layers.{}.self_attn.{}_proj.{}"
    found: dict[str, np.ndarray] = {
        "encoder/num_heads": np.array(HEADS, np.int16),
        "encoder/position_encodings/encodings": weights["embed_positions.weight"].numpy(),
        "decoder/embeddings/weight": np.ones((3, 2), np.float32),
    }
    for name in ("conv1", "conv2"):
        found |= {f"encoder/{name}/{part}": weights[f"{name}.{part}"].numpy() for part in ("weight", "bias")}
    norms = {"encoder/layer_norm": "layer_norm"}
    linears = {}
    for i in range(LAYERS):
        fused = [weights[at.format(i, part, "weight")] for part in "qkv"]
        found[f"encoder/layer_{i}/self_attention/linear_0/weight"] = torch.cat(fused).numpy()
        biases = [weights[at.format(i, "q", "bias")], torch.zeros(WIDTH), weights[at.format(i, "v", "bias")]]
        found[f"encoder/layer_{i}/self_attention/linear_0/bias"] = torch.cat(biases).numpy()
        norms |= {f"encoder/layer_{i}/self_attention/layer_norm": f"layers.{i}.self_attn_layer_norm",
                  f"encoder/layer_{i}/ffn/layer_norm": f"layers.{i}.final_layer_norm"}  # fmt: skip
        linears |= {f"encoder/layer_{i}/self_attention/linear_1": f"layers.{i}.self_attn.out_proj",
                    f"encoder/layer_{i}/ffn/linear_0": f"layers.{i}.fc1",
                    f"encoder/layer_{i}/ffn/linear_1": f"layers.{i}.fc2"}  # fmt: skip
    for name, own in norms.items():
        found |= {f"{name}/gamma": weights[f"{own}.weight"].numpy(), f"{name}/beta": weights[f"{own}.bias"].numpy()}
    for name, own in linears.items():
        found |= {f"{name}/{part}": weights[f"{own}.{part}"].numpy() for part in ("weight", "bias")}

    def text(value: str) -> bytes:
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    raw = struct.pack("<I", 6) + text("WhisperSpec") + struct.pack("<II", 3, len(found))
    for name, value in found.items():
        kind = 2 if value.dtype == np.int16 else code
        stored = value if kind == 2 else value.astype({0: np.float32, 1: np.int8, 4: np.float16}[code])
        raw += text(name) + struct.pack(f"<B{'I' * value.ndim}", value.ndim, *value.shape)
        raw += struct.pack("<BI", kind, stored.nbytes) + stored.tobytes()
    folder.mkdir()
    (folder / "model.bin").write_bytes(raw + struct.pack("<I", 0))
    (folder / "config.json").write_text("{}")
    return folder


def encoder_weights(whisper: Path) -> dict[str, torch.Tensor]:
    stored = load_file(whisper / "model.safetensors")
    return {name.removeprefix("model.encoder."): t.float() for name, t in stored.items() if ".encoder." in name}


def composed(tmp_path: Path, encoder: Path, *more: str, decoder: str = "fresh") -> Path:
    out = tmp_path / "composed"
    assert main(["compose", "--encoder", str(encoder), "--decoder", decoder, "--out", str(out), *more]) == 0
    return out


def frames_before_projector(folder: Path, mel: torch.Tensor) -> torch.Tensor:
    """What the family's class makes of (80, M) mel frames, without its projector."""
    family = family_of(folder)
    encoder = family.audio_encoder(family.load(folder, torch.float32))
    setattr(encoder, family.projector, torch.nn.Identity())
    features = torch.nn.functional.pad(mel, (0, family.mel_margin))
    with torch.no_grad():
        return family.encode(encoder, [features])[0]


def whispers_own(whisper: Path, mel: torch.Tensor) -> torch.Tensor:
    """Whisper's states at 25 Hz: pooled by two before the last normalisation, as Qwen's encoders are trained."""
    from transformers import WhisperForConditionalGeneration

    encoder = WhisperForConditionalGeneration.from_pretrained(whisper).eval().model.encoder
    states = []
    encoder.layer_norm.register_forward_hook(lambda module, inputs, output: states.append(inputs[0]))
    with torch.no_grad():
        encoder(mel[None])
        pooled = torch.nn.functional.avg_pool1d(states[0].permute(0, 2, 1), 2, 2).permute(0, 2, 1)
        return torch.nn.functional.layer_norm(pooled, (WIDTH,), encoder.layer_norm.weight, encoder.layer_norm.bias)[0]


@pytest.mark.parametrize("stored_by", ["transformers", "ctranslate2"])
def test_qwen2_audios_frames_are_whispers(tmp_path: Path, whisper: Path, stored_by: str) -> None:
    source = whisper
    if stored_by == "ctranslate2":
        source = ctranslate2_folder(tmp_path / "ct2", encoder_weights(whisper))
    folder = composed(tmp_path, source, "--labels", "siren")
    mel = torch.randn(MELS, 3000, generator=torch.Generator().manual_seed(1))  # 30 s, what Whisper sees of any clip
    found, wanted = frames_before_projector(folder, mel), whispers_own(whisper, mel)
    assert found.shape == wanted.shape == (750, WIDTH)
    assert (found - wanted).abs().max() == 0.0
    assert wanted.std() > 0.1


def test_omnis_frames_are_whispers_in_one_window_and_others_in_its_own(tmp_path: Path, whisper: Path) -> None:
    """Omni attends within two seconds and counts positions from the beginning of each window."""
    mel = torch.randn(MELS, 3000, generator=torch.Generator().manual_seed(1))
    wanted = whispers_own(whisper, mel)
    whole = composed(
        tmp_path / "a", whisper, "--labels", "siren", "--family", "qwen2_5_omni", "--encoder-window", "1500"
    )
    assert (frames_before_projector(whole, mel) - wanted).abs().max() < 2e-3  # Omni computes the positions
    blocks = composed(tmp_path / "b", whisper, "--labels", "siren", "--family", "qwen2_5_omni")
    apart = (frames_before_projector(blocks, mel) - wanted).abs()
    assert apart[60:].max() > 0.1


def test_a_random_encoder_has_the_shape_and_not_the_weights(tmp_path: Path, whisper: Path) -> None:
    folder = composed(tmp_path, whisper, "--labels", "siren", "--random-encoder")
    mel = torch.randn(MELS, 400, generator=torch.Generator().manual_seed(1))
    assert frames_before_projector(folder, mel).shape == (100, WIDTH)
    stored = load_file(folder / "model.safetensors")
    own = encoder_weights(whisper)
    assert stored["audio_tower.conv1.weight"].shape == own["conv1.weight"].shape
    assert not torch.allclose(stored["audio_tower.conv1.weight"], own["conv1.weight"], atol=0.01)


@pytest.mark.parametrize("family", ["qwen2_audio", "qwen2_5_omni"])
def test_the_encoder_of_another_checkpoint_is_taken_as_it_is(tmp_path: Path, whisper: Path, family: str) -> None:
    first = composed(tmp_path / "a", whisper, "--labels", "siren", "--family", family, "--encoder-window", "40")
    second = composed(tmp_path / "b", first, "--labels", "bell", "--seed", "7")
    assert family_of(second).name == family
    mel = torch.randn(MELS, 500, generator=torch.Generator().manual_seed(1))
    assert torch.equal(frames_before_projector(first, mel), frames_before_projector(second, mel))
    a, b = load_file(first / "model.safetensors"), load_file(second / "model.safetensors")
    prefixes = family_of(first).encoder_prefixes
    assert all(torch.equal(a[name], b[name]) for name in a if name.startswith(prefixes))
    assert any(a[name].shape != b[name].shape or not torch.equal(a[name], b[name]) for name in a if name in b)


def language_model(folder: Path, kind: str, tied: bool) -> Path:
    """A random decoder as transformers saves it, with a tokenizer that knows nothing of audio."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=alphabet, special_tokens=["</s>"], show_progress=False
    )
    tokenizer.train_from_iterator([TEXT] * 5, trainer)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>").save_pretrained(folder)
    torch.manual_seed(1)
    size = dict(vocab_size=len(tokenizer.get_vocab()), hidden_size=64, intermediate_size=96, num_hidden_layers=2,
                num_attention_heads=2, num_key_value_heads=1, rms_norm_eps=1e-5, tie_word_embeddings=tied)  # fmt: skip
    rope = {"rope_type": "default", "rope_theta": 5000.0}
    model = {
        "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**size, rope_parameters=rope)),
        "llama": lambda: LlamaForCausalLM(LlamaConfig(**size, rope_parameters=rope)),
    }[kind]()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return folder


def logits(family: ModelFamily, folder: Path, ids: torch.Tensor) -> torch.Tensor:
    model = family.load(folder, torch.float32)
    positions = torch.arange(ids.shape[1])[None]
    queries = torch.arange(ids.shape[1])[None]
    tree = tree_of(torch.full_like(ids, PROMPT), branched=False)
    with torch.no_grad():
        states = family.answer_states(
            family.text_model(model), model.get_input_embeddings()(ids), positions, tree, queries
        )
        return model.lm_head(states)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", ["qwen2", "llama"])
@pytest.mark.parametrize("family", ["qwen2_audio", "qwen2_5_omni"])
def test_a_pretrained_decoder_says_what_it_said_alone(
    tmp_path: Path, whisper: Path, family: str, kind: str, tied: bool
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    lm = language_model(tmp_path / "lm", kind, tied)
    folder = composed(tmp_path, whisper, "--family", family, decoder=str(lm))
    ids = AutoTokenizer.from_pretrained(lm)(TEXT, return_tensors="pt").input_ids
    with torch.no_grad():
        wanted = AutoModelForCausalLM.from_pretrained(lm).eval()(ids).logits
    found = logits(family_of(folder), folder, ids)[..., : wanted.shape[-1]]
    assert (found - wanted).abs().max() < 2e-5 * wanted.abs().max()
    own = AutoTokenizer.from_pretrained(folder)
    assert own(TEXT).input_ids == ids[0].tolist()
    named = family_of(folder).tokens
    assert all(len(own(token, add_special_tokens=False).input_ids) == 1 for token in named.all())


def test_it_takes_timestamps_and_answers(tmp_path: Path, whisper: Path) -> None:
    from timepro import load

    lm = language_model(tmp_path / "lm", "llama", tied=True)
    folder = composed(tmp_path, whisper, decoder=str(lm))
    init_model(folder, tmp_path / "with", TimestampSettings(), say=lambda text: None)
    processor = Processor(tmp_path / "with")
    assert processor.features_of(np.zeros(16000, np.float32)).shape[0] == MELS
    answer = load(tmp_path / "with").answer(np.random.default_rng(0).normal(0, 0.1, 32000).astype(np.float32), 16000)
    assert isinstance(answer.text, str)


def test_what_cannot_be_composed_is_refused_by_name(tmp_path: Path, whisper: Path, capsys) -> None:
    def refused(*words: str) -> str:
        assert main(["compose", *words, "--out", str(tmp_path / "none")]) == 2
        assert not (tmp_path / "none").exists()
        return capsys.readouterr().err

    lm = language_model(tmp_path / "lm", "qwen2", tied=False)
    fresh = ("--decoder", "fresh", "--labels", "siren")
    assert "--labels is for --decoder fresh" in refused(
        "--encoder", str(whisper), "--decoder", str(lm), "--labels", "a"
    )
    assert "model_type 'qwen2' has no audio encoder" in refused("--encoder", str(lm), *fresh)
    assert "model_type is 'whisper'" in refused("--encoder", str(whisper), "--decoder", str(whisper))
    eight_bits = ctranslate2_folder(tmp_path / "int8", encoder_weights(whisper), code=1)
    assert "stored as int8; convert the model with --quantization" in refused("--encoder", str(eight_bits), *fresh)
    half = ctranslate2_folder(tmp_path / "half", encoder_weights(whisper))
    whole = (half / "model.bin").read_bytes()
    (half / "model.bin").write_bytes(whole[: len(whole) // 2])
    assert "is cut off" in refused("--encoder", str(half), *fresh)
    (half / "model.bin").unlink()
    assert "give the folder of a download" in refused("--encoder", str(half), *fresh)
    learnt = encoder_weights(whisper)
    learnt["embed_positions.weight"] = learnt["embed_positions.weight"] + 0.1
    moved = ctranslate2_folder(tmp_path / "moved", learnt)
    assert "positions are not the sinusoids" in refused("--encoder", str(moved), *fresh, "--family", "qwen2_5_omni")
    config = json.loads((lm / "config.json").read_text())
    rope = {"rope_type": "linear", "factor": 2.0, "rope_theta": 5000.0}
    (lm / "config.json").write_text(json.dumps(config | {"rope_parameters": rope}))
    scaled = refused("--encoder", str(whisper), "--decoder", str(lm), "--family", "qwen2_5_omni")
    assert "rotary positions are scaled (linear)" in scaled
    (lm / "config.json").write_text(json.dumps(config | {"head_dim": 16}))
    assert "2 heads of 16 are not 64 wide" in refused("--encoder", str(whisper), "--decoder", str(lm))


def test_a_fresh_tokenizer_has_labels_of_one_token(tmp_path: Path, whisper: Path) -> None:
    from transformers import AutoTokenizer

    folder = composed(
        tmp_path, whisper, "--labels", "glass_breaking,door", "--hidden", "96", "--heads", "3", "--kv-heads", "1"
    )
    own = AutoTokenizer.from_pretrained(folder)
    assert [len(own(word).input_ids) for word in ("glass_breaking", "door")] == [1, 1]
    assert load_file(folder / "model.safetensors")["multi_modal_projector.linear.weight"].shape == (96, WIDTH)
