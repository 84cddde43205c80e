"""Optimizers and learning rates for `fit`, and when it stops early."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from notbugs import precision
from notbugs.data import Dataset, map_batches
from notbugs.errors import InputError
from notbugs.predict import BATCH_SIZE, predict
from notbugs.search import Attack, objectives
from notbugs.train.digest import digest
from notbugs.train.losses import adversarial_examples

MakeOptimizer = Callable[[nn.Module, float, float], torch.optim.Optimizer]
"""(model, learning rate, weight decay) -> optimizer: `adamw`, `sgd`, or your own. Parameter groups keep their learning rates."""
RateShape = Callable[[float], float]
"""Share of the steps that are done, in (0, 1] -> factor of the initial learning rates, 0 or more: `step_decay`, or your own."""


def settings_of(optimizer: torch.optim.Optimizer) -> list[str]:
    """What a checkpoint knows an optimizer by: its class, and the settings of each parameter group with the shapes in it."""
    kinds = (bool, int, float, str, tuple, Tensor, type(None))  # others, as functions, have another text in each process
    groups = [
        {name: value for name, value in group.items() if isinstance(value, kinds)}
        | {"params": [tuple(parameter.shape) for parameter in group["params"]]}
        for group in optimizer.param_groups
    ]
    kind = type(optimizer)
    return [f"{kind.__module__}.{kind.__qualname__}", *(repr(sorted(group.items())) for group in groups)]


def adamw(model: nn.Module, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    """AdamW, with weight decay on matrices and kernels only: the default of `fit`.

    Parameters
    ----------
    model : nn.Module
    learning_rate, weight_decay : float, 0 or more

    Returns
    -------
    torch.optim.AdamW
        Betas 0.9 and 0.99. Two parameter groups: biases and batch norm have no weight decay.

    Examples
    --------
    >>> model = nn.Linear(3, 2)
    >>> [group["weight_decay"] for group in adamw(model, 0.01, 0.05).param_groups]
    [0.05, 0.0]
    """
    weights = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    others = [parameter for parameter in model.parameters() if parameter.dim() <= 1]
    groups = [{"params": weights, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.99), fused=True)


def sgd(model: nn.Module, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    """SGD with momentum 0.9, as Ilyas et al. 2019 train: learning rate 0.1 or 0.01, weight decay 5e-4, with `step_decay`.

    Parameters
    ----------
    model : nn.Module
    learning_rate, weight_decay : float, 0 or more

    Returns
    -------
    torch.optim.SGD

    Examples
    --------
    >>> from notbugs import data, models
    >>> from notbugs.train import fit, sgd, step_decay
    >>> digits = data.load("digits").train.select(slice(0, 100))
    >>> model = models.build("small", shape=digits.shape, classes=10, width=4)
    >>> curve = fit(model, digits, epochs=2, optimizer=sgd, learning_rate=0.1, weight_decay=5e-4, schedule=step_decay(0.5))
    >>> [round(epoch.learning_rate, 3) for epoch in curve]
    [0.1, 0.01]
    """
    return torch.optim.SGD(model.parameters(), lr=learning_rate, momentum=0.9, weight_decay=weight_decay)


def step_decay(*shares: float, factor: float = 0.1) -> RateShape:
    """Learning rates that fall to a tenth, or to another factor, after each of these shares of the steps.

    Parameters
    ----------
    *shares : float, in [0, 1]
        Of all steps: epochs 50 and 100 of 150 are 1/3 and 2/3.
    factor : float, 0 or more

    Returns
    -------
    callable
        For `schedule` of `fit`.

    Raises
    ------
    InputError
        For shares outside [0, 1], as numbers of epochs would be, and a negative factor.

    Examples
    --------
    >>> rate = step_decay(1 / 3, 2 / 3)
    >>> [round(rate(share), 3) for share in (0.2, 0.5, 1.0)]
    [1.0, 0.1, 0.01]
    """
    for each in shares:
        if not 0 <= each <= 1:
            raise InputError("shares", "must be shares of the steps, from 0 to 1", each, "divide epochs by all epochs")
    if not factor >= 0:
        raise InputError("factor", "must be 0 or more", factor)
    return lambda share: factor ** sum(share > each for each in shares)


@dataclass
class EarlyStopping:
    """Stops training once accuracy on validation images has not risen for some epochs, and takes the best weights.

    Not for relabeled data sets: no part of them could decide which epoch is best (Ilyas et al. 2019, appendix D.4).

    Parameters
    ----------
    validation : Dataset
        Images that are not trained on.
    epochs : int
        Without a rise, 1 or more.
    attack : Attack, optional
        Accuracy is that on its adversarial examples: in adversarial training robust accuracy can fall while clean accuracy
        still rises (Rice et al. 2020, "Overfitting in adversarially robust deep learning"). Default: on clean images.

    Attributes
    ----------
    accuracies : list of float
        On the validation images, after each epoch of the last `fit`: each `fit` begins with none.

    Raises
    ------
    InputError
        For fewer epochs, or no images.

    Examples
    --------
    >>> from notbugs import data, models
    >>> from notbugs.train import fit
    >>> digits = data.load("digits").train
    >>> model = models.build("linear", shape=digits.shape, classes=10)
    >>> stopping = EarlyStopping(digits.select(slice(100, 150)), epochs=1)
    >>> curve = fit(model, digits.select(slice(0, 100)), epochs=50, stopping=stopping)
    >>> len(curve) < 50, max(stopping.accuracies) >= stopping.accuracies[-1]
    (True, True)
    """

    validation: Dataset
    epochs: int = 3
    attack: Attack | None = None
    accuracies: list[float] = field(default_factory=list, init=False)
    _best: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise InputError("EarlyStopping.epochs", "must be 1 or more", self.epochs)
        if not len(self.validation):
            raise InputError("EarlyStopping.validation", "must have images", 0)

    def begin(self) -> None:
        """Forget an earlier training: one object can be used for several."""
        self.accuracies, self._best = [], {}

    @property
    def done(self) -> bool:
        """Whether training ends now."""
        return self.accuracies != [] and len(self.accuracies) - self.best_epoch >= self.epochs

    @property
    def best_epoch(self) -> int:
        """The first epoch, from 1, with the highest accuracy. Raises ValueError before the first epoch."""
        return self.accuracies.index(max(self.accuracies)) + 1

    def after_epoch(self, model: nn.Module, device: torch.device) -> float:
        """Evaluate a model, and keep its weights if they are the best so far. The accuracy."""
        training = [module for module in model.modules() if module.training]
        predicted = _predicted(model.eval(), self.validation, device, self.attack)
        for module in training:
            module.training = True
        self.accuracies.append(float((predicted == self.validation.labels).double().mean()))
        if self.best_epoch == len(self.accuracies):
            self._best = copy.deepcopy(model.state_dict())
        return self.accuracies[-1]

    def take_best(self, model: nn.Module) -> None:
        """Give a model its best weights, which are then no longer kept."""
        model.load_state_dict(self._best)
        self._best = {}

    def identity(self) -> list[object]:
        """What a checkpoint knows it by."""
        return [self.epochs, self.attack is not None, list(self.validation.images.shape), digest(self.validation.labels)]

    def content(self) -> dict[str, object]:
        """What a checkpoint holds of it."""
        return {"accuracies": self.accuracies, "best": self._best}

    def restore(self, accuracies: list[float], best: dict[str, Tensor], model: nn.Module) -> None:
        """Become what a checkpoint holds. Raises ValueError, TypeError or AttributeError for what is not of this model."""
        if {name: value.shape for name, value in best.items()} != {n: value.shape for n, value in model.state_dict().items()}:
            raise ValueError("best weights of another model")
        self.accuracies, self._best = [float(each) for each in accuracies], best


def _predicted(model: nn.Module, dataset: Dataset, device: torch.device, attack: Attack | None) -> Tensor:
    """Predicted classes of images, or of their adversarial examples."""
    if attack is None:
        return predict(model, dataset, device)

    def predictions(images: Tensor, index: Tensor) -> Tensor:
        found = adversarial_examples(attack, model, images, dataset.labels[index].to(images.device))
        with torch.no_grad():
            return objectives.logits(model, found).argmax(1).cpu()

    size = precision.bounded_batch_size(BATCH_SIZE, device, dataset.shape)
    found: Tensor = map_batches(predictions, dataset, batch_size=size, device=device, share=False)
    return found
