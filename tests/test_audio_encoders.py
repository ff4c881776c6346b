"""Audio encoders by name, and models of transformers where that is installed."""

import sys

import numpy as np
import pytest
from media_files import tone, write_wave

from mocme_jax.data.media import transformers_models
from mocme_jax.data.media.file_encoders import MEDIA, encode_files, file_encoder
from mocme_jax.data.media.sound_spectrum import sound_vector
from mocme_jax.data.media.sounds import RATE, read_sound
from mocme_jax.errors import UserError


def test_the_default_is_the_spectrum(tmp_path):
    pytest.importorskip("soundfile")
    path = write_wave(tmp_path / "a.wav", tone(440))
    rows = encode_files(file_encoder("audio", MEDIA["audio"].encoders[0]), [path])
    np.testing.assert_array_equal(rows, [sound_vector(read_sound(path))])


def test_unknown_encoders_and_missing_packages(monkeypatch):
    for name, told in (
        ("mell", r"audio encoder 'mell' is unknown; did you mean mel\?"),
        ("layout", "use mel or transformers:MODEL"),
        ("transformers:", r"did you mean transformers:MODEL\?"),
    ):
        with pytest.raises(UserError, match=told):
            file_encoder("audio", name)
    with pytest.raises(UserError, match="image encoder 'mel' is unknown; use layout, efficientnet-lite0 or"):
        file_encoder("video", "mel")
    transformers_models._load.cache_clear()
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"audio encoder transformers:a/b needs packages; .*transformers torch$"):
        file_encoder("audio", "transformers:a/b")


@pytest.fixture
def models(tmp_path):
    """Untrained models of both kinds, as folders: one of any length, and one that fills every sound up to a second."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    small = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 24}
    strides = {"conv_dim": (8, 8), "conv_kernel": (40, 20), "conv_stride": (40, 20), "num_feat_extract_layers": 2}
    listening = transformers.Wav2Vec2Model(
        transformers.Wav2Vec2Config(**small, **strides, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2)
    )
    listening.save_pretrained(tmp_path / "wav2vec2")
    transformers.Wav2Vec2FeatureExtractor(sampling_rate=8_000).save_pretrained(tmp_path / "wav2vec2")
    whisper = transformers.WhisperModel(
        transformers.WhisperConfig(
            d_model=16,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=24,
            decoder_ffn_dim=24,
            vocab_size=60,
            max_source_positions=50,
            num_mel_bins=20,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=1,
        )
    )
    whisper.save_pretrained(tmp_path / "whisper")
    extractor = transformers.WhisperFeatureExtractor(feature_size=20, chunk_length=1)
    extractor.save_pretrained(tmp_path / "whisper")
    transformers_models._load.cache_clear()
    return {"wav2vec2": listening.eval(), "whisper": whisper.eval(), "extractor": extractor}


def test_models_of_transformers(tmp_path, models, monkeypatch):
    import torch

    short = tone(440, 0.4).astype(np.float32)
    with torch.no_grad():
        inputs = torch.from_numpy(models["extractor"](short, sampling_rate=RATE, return_tensors="np")["input_features"])
        heard = models["whisper"].encoder(inputs).last_hidden_state[0]
    # 0.4 of a second that was filled up to one: 20 of 50 positions.
    assert heard.shape == (50, 16)
    monkeypatch.setattr(transformers_models, "_SECONDS", 1)
    vectors = transformers_models.of_sounds(str(tmp_path / "whisper"))
    found = vectors([short])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0], heard[:20].mean(0), atol=1e-5)
    longer = np.concatenate([tone(440), tone(880)]).astype(np.float32)
    np.testing.assert_allclose(vectors([longer])[0], vectors([longer[:RATE], longer[RATE:]]).mean(0), atol=1e-5)

    transformers_models._load.cache_clear()
    vectors = transformers_models.of_sounds(str(tmp_path / "wav2vec2"))
    halved = transformers_models.resampled(short, RATE, 8_000)
    # The extractor brings the sound to mean 0 and deviation 1.
    scaled = torch.from_numpy((halved - halved.mean()) / np.sqrt(halved.var() + 1e-7))[None]
    with torch.no_grad():
        wanted = models["wav2vec2"](scaled).last_hidden_state[0].mean(0)
    np.testing.assert_allclose(vectors([short])[0], wanted, atol=1e-4)


def test_what_is_no_model_is_told_in_one_line(tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    transformers_models._load.cache_clear()
    with pytest.raises(UserError, match=r"cannot be loaded \(.*\); give the name of a model of sounds, or") as told:
        file_encoder("audio", f"transformers:{tmp_path}")
    assert "\n" not in str(told.value)
