"""Classifiers: train one, attack one."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from numbers import Real
from os import PathLike
from pathlib import Path

from torch import nn

from notbugs import inline, metrics, models
from notbugs.api.inputs import LabeledData, by_name, check_numbers, check_whole, classifier, evaluated_part, with_gradients
from notbugs.errors import InputError
from notbugs.metrics import Accuracy
from notbugs.search import NormBall, SpatialTransforms
from notbugs.search.threat_models import parse_threat_model
from notbugs.study.config import StudyConfig
from notbugs.study.epsilon import default_epsilon
from notbugs.study.resolve import resolve
from notbugs.study.single import SingleTraining, resumable, save_single, train_single
from notbugs.train import Epoch


@with_gradients
def train(
    dataset: LabeledData,
    *,
    loss: str = "standard",
    norm: str = "l2",
    epsilon: float | None = None,
    network: str | None = None,
    width: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    optimizer: str = "adamw",
    learning_rate: float | None = None,
    weight_decay: float | None = None,
    stop_early: int | None = None,
    adversarial_steps: int | None = None,
    noise: float | None = None,
    pretrained: bool = False,
    seed: int = 0,
    bf16: bool | None = None,
    device: str = "cpu",
    out: str | PathLike[str] | None = None,
    progress: Callable[[float, str], None] | None = None,
    callback: Callable[[Epoch], None] | None = None,
) -> models.Model:
    """Train one classifier, as `notbugs train` does.

    Parameters
    ----------
    dataset : str, path, Splits or Dataset
        Its training part.
    loss : {"standard", "adversarial", "trades"}
        Standard training; adversarial training (Madry et al. 2018), on worst-case perturbed images; TRADES (Zhang et al. 2019).
    norm : {"l2", "linf"}
    epsilon : float, optional
        Of adversarial training, for pixels in [0, 1]. Default: what suits the images.
    network : str, optional
        small, resnet9, resnet18, …, timm:NAME, or module:function. Default: what suits the images.
    width, epochs, batch_size : int, optional
        Default: by the images.
    optimizer : {"adamw", "sgd"}
        AdamW with warm-up and linear decay; or SGD with momentum 0.9, as in the paper, whose learning rate falls to a tenth after
        each third of the steps.
    learning_rate, weight_decay : float, optional
        Default: by the images; with "sgd" 0.1 (0.01 with `pretrained`) and 5e-4.
    stop_early : int, optional
        Set about a tenth of each class of the training images aside, end training once accuracy on these has not risen for so
        many epochs, and take the best weights. With an adversarial loss it is accuracy under PGD. `notes` of the model has the
        numbers of images and epochs. Test images are not used.
    adversarial_steps : int, optional
        PGD steps in training with an adversarial loss. Default: 3.
    noise : float, optional
        Standard deviation of Gaussian noise that is added to each training image, pixels in [0, 1]. Default: 0; in adversarial
        training on `mnist5k` by name, in L2, a tenth of epsilon.
    pretrained : bool
        Begin with the weights of `network`, and fine-tune.
    seed : int
    bf16 : bool, optional
        Train in bfloat16. Default: on a GPU that supports it, and on a CPU where a timed batch is faster in it, but for images of
        up to 16 pixels. `notes` of the model say so.
    device : str
        As given, "cpu" by default; commands take a GPU where there is one.
    out : str or path, optional
        Save it: NAME.safetensors. A training that is interrupted after 10 seconds or more is resumed by the same call.
    progress : callable, optional
        Called with the share that is done, and a few words.
    callback : callable, optional
        Called with each `train.Epoch` as it ends: `train.loggers.tensorboard(folder)`, `mlflow()`, `wandb()`, or your own.

    Returns
    -------
    Model
        In evaluation mode: images (N, C, H, W) in [0, 1] to logits (N, K). `train.fit` trains any network with any loss.

    Raises
    ------
    InputError
        Before training if the input cannot be used.

    Examples
    --------
    >>> import notbugs
    >>> digits = notbugs.load_dataset("digits", limit=100)
    >>> model = notbugs.train(digits, epochs=1, width=4)
    >>> model(digits.test.pixels([0])).shape
    torch.Size([1, 10])
    >>> model = notbugs.train(digits, epochs=20, network="linear", optimizer="sgd", stop_early=2)
    >>> model.notes[0]
    'early stopping: 10 of 100 training images are set aside for validation, about 10 % of each class, with seed 0'
    """
    check_numbers(epsilon=epsilon, learning_rate=learning_rate, weight_decay=weight_decay, noise=noise)
    check_whole(epochs=epochs, batch_size=batch_size, width=width, adversarial_steps=adversarial_steps, seed=seed)
    if network is not None and not isinstance(network, str):
        remedy = "train a network of your own by notbugs.train.fit(network, dataset)"
        raise InputError("network", "must be the name of an architecture", type(network).__name__, remedy)
    training = SingleTraining(loss, optimizer, stop_early, noise, adversarial_steps)
    training.check()
    if out is not None and Path(out).suffix != ".safetensors":
        raise InputError("out", "must end in .safetensors", str(out))
    with by_name(dataset) as (name, splits):
        config = StudyConfig(
            name,
            norm=norm,
            epsilon=epsilon,
            network=network,
            width=width,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            pretrained=pretrained,
            seed=seed,
            bf16=bf16,
            device=device,
        )
        resolved = resolve(training.with_defaults(config), splits)
        if out is not None:
            models.check_writable(out)
        report = (lambda _, share, words: progress(share, words)) if progress else (lambda *_: None)
        with nullcontext() if out is None else resumable(Path(out), resolved, splits, training) as checkpoint:
            found = train_single(resolved, splits, training, report_progress=report, callback=callback, checkpoint=checkpoint)
            if out is not None:
                save_single(found, resolved, training, Path(out))
    return found.trained.model.eval()


@dataclass(frozen=True)
class Attacked:
    """Accuracies of a classifier, clean and within threat models. Printed as a table; in a notebook, too.

    Attributes
    ----------
    accuracies : tuple of Accuracy
        Clean first. Each has its attack, n and 95 % CI.
    """

    accuracies: tuple[Accuracy, ...]

    def __iter__(self) -> Iterator[Accuracy]:
        return iter(self.accuracies)

    def __len__(self) -> int:
        return len(self.accuracies)

    def __getitem__(self, number: int) -> Accuracy:
        return self.accuracies[number]

    def _cells(self) -> list[list[str]]:
        return [
            [
                str(NormBall(row.norm, row.epsilon)) if row.attack != "none" else "clean",
                inline.percent(row.accuracy),
                f"[{100 * row.ci_low:.1f}, {100 * row.ci_high:.1f}]",
                f"{row.correct} of {row.n}",
                row.attack,
            ]
            for row in self.accuracies
        ]

    def __str__(self) -> str:
        return "\n".join(f"{row[0]:14} {row[1]:>7}  {row[2]:13}  {row[3]}  {row[4]}" for row in self._cells())

    def _repr_html_(self) -> str:
        return inline.table(["threat model", "accuracy", "95 % CI", "correct", "attack"], self._cells())


Threats = str | float | NormBall | SpatialTransforms | Sequence[str | float | NormBall | SpatialTransforms]


@with_gradients
def attack(
    model: nn.Module | str | PathLike[str],
    dataset: LabeledData,
    threats: Threats | None = None,
    *,
    budget: str = "standard",
    images: int | None = None,
    device: str = "cpu",
) -> Attacked:
    """Robust accuracy of a classifier under the attack ensemble: `metrics.robust_accuracy`, in any norms.

    Parameters
    ----------
    model : Module, str or path
        Images (N, C, H, W) in [0, 1] to logits (N, K); or a file or name as `notbugs attack` takes it.
    dataset : str, path, Splits or Dataset
        Its test part; of a Dataset all images.
    threats : str, float, NormBall, or several of them, optional
        "l2:0.5", "linf:8/255", "l1:10", "l0:1"; a number is an L2 epsilon. Default: an L2 epsilon that suits the images, and
        half of it.
    budget : {"quick", "standard", "thorough"}
        As the documentation, "Attacks", defines them.
    images : int, optional
        Attack so many, evenly spaced. Default: all.
    device : str
        As given, "cpu" by default; commands take a GPU where there is one.

    Returns
    -------
    Attacked
        The robust accuracy is an upper bound. `notbugs.audit` has the sanity checks, which say whether it is a close one.

    Warns
    -----
    NotbugsWarning
        If a network had to be adapted to the images, which is said, or is far more accurate with pixels in another range.

    Raises
    ------
    InputError
        If the model, the images or a threat model cannot be used.

    Examples
    --------
    >>> import notbugs
    >>> digits = notbugs.load_dataset("digits", limit=100)
    >>> model = notbugs.train(digits, epochs=3, network="linear")
    >>> found = notbugs.attack(model, digits, ["l2:0.25", "linf:0.1"], images=4, budget="quick")
    >>> [(row.norm, row.epsilon, row.n) for row in found]
    [('l2', 0.0, 4), ('l2', 0.25, 4), ('linf', 0.1, 4)]
    """
    check_whole(images=images)
    part = evaluated_part(dataset, images)
    balls = _balls(threats, dataset)
    network = classifier(model, part, device)
    found: list[Accuracy] = []
    for norm in dict.fromkeys(ball.norm for ball in balls):
        same = [ball for ball in balls if ball.norm == norm]
        rows = metrics.robust_accuracy(network, part, same, budget=budget, device=device)
        found += rows if not found else rows[1:]  # the clean accuracy once
    return Attacked(tuple(found))


def _threat_model(given: object) -> NormBall | SpatialTransforms:
    """A threat model as it was given: a number is an L2 epsilon, as on the command line."""
    if isinstance(given, NormBall | SpatialTransforms):
        return given
    if isinstance(given, str) or (isinstance(given, Real) and not isinstance(given, bool)):
        return parse_threat_model(str(given))
    raise InputError("threats", "must be l2:0.5, a number, a NormBall, or several of them", type(given).__name__)


def _balls(threats: Threats | None, dataset: LabeledData) -> list[NormBall]:
    """The threat models. Raises InputError for rotations, and for none."""
    if threats is None:
        epsilon = default_epsilon(evaluated_part(dataset), "l2").value
        return [NormBall("l2", epsilon / 2), NormBall("l2", epsilon)]
    given = list(threats) if isinstance(threats, Iterable) and not isinstance(threats, str) else [threats]
    balls = [_threat_model(each) for each in given]
    if not balls:
        raise InputError("threats", "must be one or more", "none", "pass l2:0.5, or leave it out")
    found = [ball for ball in balls if not isinstance(ball, SpatialTransforms)]
    if len(found) < len(balls):
        raise InputError(
            "threats", "must be in l2, linf, l1 or l0", ", ".join(map(str, given)), "notbugs.audit has rotations, too"
        )
    if masked := [ball for ball in found if ball.restriction]:
        raise InputError("threats", "must leave all pixels free", str(masked[0]), "attacks.adaptive_ensemble takes masks")
    return found
