"""Predictions of a model on a data set."""

from types import SimpleNamespace
from typing import Any

import torch
from construct.conftest import FirstPixel, random_dataset, with_predictions
from torch import Tensor, nn

from notbugs import models
from notbugs.predict import predict


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


def test_an_object_with_logits_will_do() -> None:
    class Output(nn.Module):
        def forward(self, images: Tensor) -> Any:
            return SimpleNamespace(logits=FirstPixel()(images))

    part = with_predictions(random_dataset(5, (1, 2, 2)), [0, 1, 2, 3, 0])
    assert predict(Output(), part).tolist() == [0, 1, 2, 3, 0]
