"""Networks of timm, Hugging Face transformers and torchvision: the real packages where they import, else a stand-in for timm."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from notbugs import attacks, data, models
from notbugs.data import Dataset
from notbugs.errors import InputError
from notbugs.models.by_name import classifier_by_name
from notbugs.models.libraries import hub_file, library_network
from notbugs.models.libraries.hf import reading_of_processor
from notbugs.models.libraries.torchvision import replace_head
from notbugs.models.output_names import OutputNames
from notbugs.models.reading import Reading
from notbugs.study.given import load_fitting

Raises = Callable[[str], AbstractContextManager[None]]
COLORS = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def same_logits(name: str, network: nn.Module, part: Dataset, reading: Reading) -> models.by_name.CheckpointMetadata:
    """Loaded, a network gives the logits that it gives for images that are normalized and resized as its configuration says."""
    loaded, metadata = classifier_by_name(name, classes=part.classes, part=part)
    images = part.pixels(slice(0, 3)).expand(-1, 3, -1, -1)
    if reading.size:
        mode = "bicubic" if reading.bicubic else "bilinear"
        images = nn.functional.interpolate(images, reading.size, mode=mode, antialias=True)
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (reading.mean, reading.std))
    expected = network.eval()((images - mean) / std)
    assert torch.allclose(loaded(part.pixels(slice(0, 3))), getattr(expected, "logits", expected), atol=1e-4)
    return metadata


def finetuned(name: str, tmp_path: Path, **options: Any) -> models.Model:
    """A pretrained network for gray images of another number of classes; saved and loaded it is the same."""
    model = models.build(name, shape=(1, 16, 16), classes=4, seed=3, pretrained=True, **options)
    again = models.build(name, shape=(1, 16, 16), classes=4, seed=3, pretrained=True, **options)
    other = models.build(name, shape=(1, 16, 16), classes=4, seed=4, pretrained=True, **options)
    images = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model.eval()(images), again.eval()(images)) and not torch.equal(model(images), other.eval()(images))
    assert torch.allclose(model.features(images), other.features(images), atol=1e-5)  # the last layer alone is random
    models.save(model, tmp_path / "tuned.safetensors", classes=list("abcd"))
    loaded, _ = models.load(tmp_path / "tuned.safetensors")
    assert torch.equal(loaded(images), model(images)) and torch.equal(loaded.features(images), model.features(images))
    return model


# ---- without the packages --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "package"), [("timm:a", "timm"), ("hf:a", "transformers"), ("torchvision:a", "torchvision")])
def test_without_its_package_a_name_is_one_line(
    name: str, package: str, monkeypatch: pytest.MonkeyPatch, raises_one_line: Raises
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with raises_one_line(rf"^MODEL: needs the package {package} for {name}; pip install {package}$"):
        classifier_by_name(name, classes=("a", "b"))
    with raises_one_line(rf"^--network: needs the package {package} for {name}; pip install {package}$"):
        models.build(name, shape=(3, 8, 8), classes=2)
    with raises_one_line(r"^MODEL: must name a network after "):
        classifier_by_name(f"{name.partition(':')[0]}:", classes=("a", "b"))


@pytest.mark.usefixtures("stand_in")
def test_trained_network_with_its_normalization_size_and_classes(digits: data.Splits, raises_one_line: Raises) -> None:
    import timm

    reading = Reading(mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), size=(12, 12))
    metadata = same_logits("timm:tiny", timm.create_model("tiny", pretrained=True), digits.test, reading)
    assert metadata.classes == tuple(f"label {number}" for number in range(10))
    assert metadata.notes == (
        "its first layer resizes images from 8x8 to 12x12, its input size",
        "it takes RGB: the gray channel is repeated three times",
    )
    with raises_one_line(r"^MODEL: timm:none must be a network for classification of timm, got RuntimeError: Unknown model"):
        classifier_by_name("timm:none", classes=("a", "b"))


@pytest.mark.usefixtures("stand_in")
def test_network_to_train_begins_with_its_weights_and_a_new_last_layer(tmp_path: Path) -> None:
    model = finetuned("timm:tiny", tmp_path)
    assert models.head_name(model) == "network.fc" and isinstance(model, models.WrappedClassifier)
    assert model.notes[0] == (
        "it began with pretrained weights and a new last layer; pixels are normalized as those: "
        "mean 0.4, 0.5, 0.6, std 0.2, 0.3, 0.4"
    )
    assert model.architecture["mean"] == [0.4, 0.5, 0.6]
    random = models.build("timm:tiny", shape=(3, 16, 16), classes=4, mean=[0.1, 0.2, 0.3], std=[0.5] * 3)
    assert random.architecture["mean"] == [0.1, 0.2, 0.3] and random.notes == ()
    small = models.build("timm:tiny", shape=(3, 6, 6), classes=4)
    assert small.notes == ("its first layer resizes images from 6x6 to 12x12, the size that it takes",)
    models.save(small, tmp_path / "small.safetensors")
    assert models.load(tmp_path / "small.safetensors")[0](torch.rand(2, 3, 6, 6)).shape == (2, 4)


@pytest.mark.usefixtures("stand_in")
def test_weights_of_a_network_of_a_package(tmp_path: Path, digits: data.Splits) -> None:
    import timm

    network = timm.create_model("tiny", pretrained=True)
    torch.save({f"module.{name}": value for name, value in network.state_dict().items()}, tmp_path / "weights.pt")
    part = digits.test
    loaded, metadata = classifier_by_name(str(tmp_path / "weights.pt"), classes=part.classes, network="timm:tiny", part=part)
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in ((0.4, 0.5, 0.6), (0.2, 0.3, 0.4)))
    images = part.pixels(slice(0, 3))
    assert torch.allclose(loaded(images), network.eval()((images - mean) / std), atol=1e-5)
    assert metadata.notes[0].startswith("its pixels are normalized as those of timm:tiny: mean 0.4, 0.5, 0.6, standard deviation")


@pytest.mark.usefixtures("stand_in")
def test_outputs_of_other_classes_are_picked_by_name_or_refused(raises_one_line: Raises) -> None:
    import timm

    images = torch.randint(256, (4, 3, 12, 12), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    pets = Dataset(images, torch.arange(4) % 2, ("Tabby Cat", "chihuahua"), tuple("abcd"))
    torch.manual_seed(3)
    network, pixels = timm.create_model("wide", pretrained=True).eval(), pets.pixels(slice(None))
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in ((0.4, 0.5, 0.6), (0.2, 0.3, 0.4)))
    outputs = network((pixels - mean) / std)

    torch.manual_seed(3)
    model, metadata = load_fitting("timm:wide", pets, dataset="pets")
    assert torch.allclose(model(pixels), outputs[:, [281, 151]], atol=1e-5) and attacks.has_gradient(model, pixels)
    assert metadata.notes == ("2 of its 1,000 outputs are the classes of pets, by their names; the others are not used",)
    with_features, words = models.with_features(model, pixels[:2])
    assert words == "the input of its layer network.fc" and with_features.features(pixels).shape == (4, 6)
    with_features, words = models.with_features(model, pixels[:2], "network.norm")
    assert words == "the output of its layer network.norm" and torch.equal(with_features(pixels), model(pixels))
    assert torch.allclose(
        with_features.features(pixels), network.norm(network.stem((pixels - mean) / std)).mean((2, 3)), atol=1e-5
    )

    others = replace(pets, classes=("cat", "chihuahua"))
    with raises_one_line(r"^timm:wide: must have one output for each class of pets, got none called cat among 1000.*--class-map"):
        load_fitting("timm:wide", others, dataset="pets")
    with raises_one_line(r"^timm:nameless: must have one output for each of the 2 classes of pets, got 1000; .*--class-map"):
        load_fitting("timm:nameless", others, dataset="pets")
    torch.manual_seed(3)
    said = OutputNames.read(None, "cat=281+282,chihuahua=151")
    model, _ = load_fitting("timm:nameless", others, dataset="pets", outputs=said)
    expected = torch.stack([outputs[:, 281:283].logsumexp(1), outputs[:, 151]], dim=1)
    assert torch.allclose(model(pixels), expected, atol=1e-5)


def test_image_processors_of_hugging_face() -> None:
    vit = {"do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    assert reading_of_processor({**vit, "size": {"height": 224, "width": 192}, "resample": 3}) == Reading(
        mean=(0.5,) * 3, std=(0.25,) * 3, size=(224, 192), bicubic=True
    )
    cropped = reading_of_processor({**vit, "size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}})
    assert cropped.size == (224, 224)
    assert reading_of_processor({**vit, "size": 160, "do_resize": False}).size is None
    unscaled = reading_of_processor({**vit, "do_rescale": False})
    assert unscaled.mean == pytest.approx([0.5 / 255] * 3) and unscaled.std == pytest.approx([0.25 / 255] * 3)
    offset = reading_of_processor({"rescale_factor": 1 / 127.5, "rescale_offset": True, "do_normalize": False})
    assert offset.mean == pytest.approx([0.5] * 3) and offset.std == pytest.approx([0.5] * 3)  # x / 127.5 - 1
    assert reading_of_processor({"do_normalize": False, "do_flip_channel_order": True}) == Reading(flip_channels=True)


def test_new_last_layers(raises_one_line: Raises) -> None:
    linear = nn.Sequential(nn.Flatten(), nn.Linear(4, 7), nn.Linear(7, 7, bias=False))
    replace_head(linear, 7, 3)
    assert isinstance(linear[2], nn.Linear) and linear[2].weight.shape == (3, 7) and linear[2].bias is None
    convolution = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Conv2d(5, 7, 1))
    replace_head(convolution, 7, 3)
    assert convolution(torch.zeros(1, 3, 8, 8)).shape == (1, 3, 6, 6)
    with raises_one_line("--network: must end with a linear layer or a convolution to be fine-tuned, got Flatten"):
        replace_head(nn.Flatten(), 7, 3)


def test_file_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raises_one_line: Raises) -> None:
    (tmp_path / "hub.pt").touch()
    asked: list[dict[str, str]] = []

    def download(**options: str) -> str:
        asked.append(options)
        if "none" in options["repo_id"]:
            raise OSError("offline")
        return str(tmp_path / "hub.pt")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    assert hub_file("hf:owner/robust/folder/resnet18.ckpt") == tmp_path / "hub.pt"
    assert asked == [{"repo_id": "owner/robust", "filename": "folder/resnet18.ckpt"}]
    with raises_one_line(r"^MODEL: needs the weights of hf:none/robust/a.ckpt, which are not in the cache and cannot be"):
        classifier_by_name("hf:none/robust/a.ckpt", classes=("a", "b"))
    assert hub_file(f"hf:{tmp_path}/hub.pt") is None and hub_file("hf:owner/robust") is None


# ---- with the packages -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("torchvision_operators")
def test_timm(tmp_path: Path, digits: data.Splits) -> None:
    timm = pytest.importorskip("timm", exc_type=Exception)  # of a torchvision that does not fit this PyTorch, too
    network = timm.create_model("resnet10t", num_classes=10).eval()
    folder = tmp_path / "timm"
    folder.mkdir()
    torch.save(network.state_dict(), folder / "pytorch_model.bin")
    config = {**network.pretrained_cfg, "mean": [0.4] * 3, "std": [0.3] * 3, "input_size": [3, 40, 40], "num_classes": 10}
    settings = {"architecture": "resnet10t", "num_classes": 10, "label_names": [str(number) for number in range(10)]}
    (folder / "config.json").write_text(json.dumps({**settings, "pretrained_cfg": config}, default=str))
    reading = Reading(mean=(0.4,) * 3, std=(0.3,) * 3, size=(40, 40), bicubic=True)
    metadata = same_logits(f"timm:local-dir:{folder}", network, digits.test, reading)
    assert metadata.classes == tuple(str(number) for number in range(10))
    finetuned(f"timm:local-dir:{folder}", tmp_path)
    transformer = models.build("timm:vit_tiny_patch16_224", shape=(3, 32, 32), classes=4)
    assert models.head_name(transformer) == "network.head" and transformer.features(torch.zeros(1, 3, 32, 32)).shape == (1, 192)
    crossing = models.build("timm:crossvit_tiny_240", shape=(3, 32, 32), classes=4)  # built for 32x32, it does not run
    assert crossing.notes == ("its first layer resizes images from 32x32 to 240x240, the size that it takes",)
    models.save(crossing, tmp_path / "crossing.safetensors")
    assert torch.equal(
        models.load(tmp_path / "crossing.safetensors")[0].eval()(torch.zeros(1, 3, 32, 32)),
        crossing.eval()(torch.zeros(1, 3, 32, 32)),
    )
    names = library_network("timm:resnet10t", pretrained=False).classes
    assert names is not None and names[0].startswith("tench") and len(names) == 1000


@pytest.mark.slow
@pytest.mark.usefixtures("torchvision_operators")
def test_hugging_face(tmp_path: Path, digits: data.Splits) -> None:
    transformers = pytest.importorskip("transformers")
    names = {number: f"digit {number}" for number in range(10)}
    config = transformers.ViTConfig(
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        image_size=16,
        patch_size=8,
        id2label=names,
    )
    network = transformers.ViTForImageClassification(config).eval()
    network.save_pretrained(tmp_path / "vit")
    processor = {"image_mean": [0.4] * 3, "image_std": [0.3] * 3, "size": {"height": 16, "width": 16}, "resample": 2}
    (tmp_path / "vit" / "preprocessor_config.json").write_text(json.dumps(processor))
    reading = Reading(mean=(0.4,) * 3, std=(0.3,) * 3, size=(16, 16))
    metadata = same_logits(f"hf:{tmp_path / 'vit'}", network, digits.test, reading)
    assert metadata.classes == tuple(names.values())
    finetuned(f"hf:{tmp_path / 'vit'}", tmp_path)
    config.problem_type = "multi_label_classification"
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path / "labels")
    with pytest.raises(InputError, match=r"must be trained to tell one class for each image, got problem_type multi_label_cl"):
        library_network(f"hf:{tmp_path / 'labels'}", pretrained=True)
    config.problem_type = None
    backbone = transformers.ViTModel(config, add_pooling_layer=False)
    backbone.save_pretrained(tmp_path / "backbone")
    with pytest.raises(InputError, match=r"backbone must have all its weights, got none for classifier.bias; fine-tune it"):
        library_network(f"hf:{tmp_path / 'backbone'}", pretrained=True)
    begun = models.build(f"hf:{tmp_path / 'backbone'}", shape=(3, 16, 16), classes=4, pretrained=True)
    weights = dict(begun.named_parameters())
    assert torch.equal(weights["network.vit.embeddings.cls_token"], backbone.embeddings.cls_token)
    large = models.build(f"hf:{tmp_path / 'vit'}", shape=(1, 24, 24), classes=4, pretrained=True)
    assert large.notes[-1] == "its first layer resizes images from 24x24 to 16x16, the size that it takes"


@pytest.mark.slow
@pytest.mark.usefixtures("torchvision_operators")
@pytest.mark.parametrize("name", ["squeezenet1_1", "googlenet"])
def test_torchvision(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits: data.Splits) -> None:
    library = pytest.importorskip("torchvision.models", exc_type=Exception)  # of a build for another PyTorch, too
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    weights = library.get_model_weights(name).DEFAULT
    network = library.get_model(name, weights=None, **({"init_weights": False} if name == "googlenet" else {}))
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    torch.save(network.state_dict(), cache / weights.url.rpartition("/")[2])
    if hasattr(network, "transform_input"):
        network.transform_input = True  # as with weights
    metadata = same_logits(f"torchvision:{name}", network, digits.test, Reading(*COLORS, size=(224, 224)))
    assert metadata.classes is not None and metadata.classes[:2] == ("tench", "goldfish")
    model = models.build(f"torchvision:{name}", shape=(3, 32, 32), classes=4, pretrained=True)
    images: Tensor = torch.rand(2, 3, 32, 32)
    model.train()(images).sum().backward()  # type: ignore[no-untyped-call]
    models.save(model.eval(), tmp_path / "tuned.safetensors")
    assert torch.equal(models.load(tmp_path / "tuned.safetensors")[0](images), model(images))
    assert isinstance(model, models.WrappedClassifier) and model.pooled == (name == "squeezenet1_1")
