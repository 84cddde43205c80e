"""Predictions of a model on a data set."""

from types import SimpleNamespace
from typing import Any

import torch
from construct.conftest import FirstPixel, random_dataset, with_predictions
from torch import Tensor, nn

from notbugs import models
from notbugs.models import black_box
from notbugs.predict import features, logits, predict


def test_predict_gives_the_models_predictions_image_by_image() -> None:
    part = with_predictions(random_dataset(1203, (1, 3, 3)), [(7 * i) % 11 for i in range(1203)])
    wanted = [(((7 * i) % 11) + 40) % 4 for i in range(1203)]
    assert predict(FirstPixel(), part).tolist() == wanted
    model = models.build("small", shape=(1, 8, 8), classes=4, width=4).train()
    digits = random_dataset(9, (1, 8, 8))
    model.eval()
    with torch.no_grad():
        predictions = model(digits.pixels(slice(None))).argmax(1)
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert torch.equal(predict(model, digits), predictions)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_model_may_return_an_object_with_logits() -> None:
    class Output(nn.Module):
        def forward(self, images: Tensor) -> Any:
            return SimpleNamespace(logits=FirstPixel()(images))

    part = with_predictions(random_dataset(5, (1, 2, 2)), [0, 1, 2, 3, 0])
    assert predict(Output(), part).tolist() == [0, 1, 2, 3, 0]


def test_functions_black_boxes_and_modules_have_the_same_predictions_and_logits() -> None:
    model, digits = models.build("small", shape=(1, 8, 8), classes=4, width=4).eval(), random_dataset(9, (1, 8, 8))
    with torch.no_grad():
        wanted = model(digits.pixels(slice(None)))
    box = black_box.BlackBox(lambda images: model(torch.from_numpy(images)), digits.classes)
    for each in (model, lambda images: model(images), box):
        assert torch.equal(predict(each, digits), wanted.argmax(1))
        assert torch.equal(logits(each, digits), wanted)


def test_features_are_the_inputs_of_the_head() -> None:
    model, digits = models.build("small", shape=(1, 8, 8), classes=4, width=4).eval(), random_dataset(9, (1, 8, 8))
    values = features(model, digits)
    assert not values.requires_grad
    assert torch.equal(model.get_submodule("head")(values).detach(), logits(model, digits))
