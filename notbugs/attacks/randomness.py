"""Models that are random on purpose: gradients averaged over draws (EOT), images that count by their share of correct draws."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from notbugs import search
from notbugs.attacks.budgets import UNTARGETED_ATTACKS
from notbugs.attacks.combine import worst_case
from notbugs.attacks.ensemble import adaptive_ensemble, gradient_ensemble
from notbugs.attacks.pgd import default_steps
from notbugs.attacks.validation import Model, has_gradient
from notbugs.models import frozen
from notbugs.search import Attack, NormBall, Objective, SpatialTransforms, ThreatModel, objectives
from notbugs.search.threat_models import per_image

DRAWS = 20  # forward passes that are averaged: those of AutoAttack's version "rand"
EOT_STEPS = {"quick": 10, "standard": 50, "thorough": 100}  # of PGD on the mean loss, by budget
EOT_VALUES = 250 * 3 * 32 * 32  # images x draws x values of an image whose graphs are in memory at once
FEW_IMAGES = 2  # of which many passes are compared: one alone is too few for batch norm in training mode
DIFFERENT = 1e-3  # share of the spread of the logits: below, a difference is rounding


def is_random(model: Model, images: Tensor) -> bool:
    """Whether forward passes of the same images differ, in evaluation mode, in one of 20.

    Two passes would miss models that draw one of a few values for a whole batch, as a random resize does.

    Parameters
    ----------
    model : callable
        Images (n, C, H, W) to logits (n, K).
    images : Tensor, (N, C, H, W), in [0, 1]
        A few are enough: two passes are of all of them, the others of the first two.

    Examples
    --------
    >>> network = nn.Flatten()
    >>> is_random(network, torch.rand(2, 1, 1, 3)), is_random(lambda images: network(images + 0.1 * torch.rand_like(images)),
    ...     torch.rand(2, 1, 1, 3))
    (False, True)
    """
    with frozen(model) if isinstance(model, nn.Module) else nullcontext():
        return difference_of_passes(model, images) > DIFFERENT if len(images) else False


def difference_of_passes(model: Model, images: Tensor) -> float:
    """The largest difference between the logits of forward passes of the same images, in the mode that the model is in.

    As a share of the standard deviation over classes. Of 20 passes as in `is_random`; those after the first that differs by more
    than rounding are left out.
    """
    few, largest = images[:FEW_IMAGES], 0.0
    with torch.no_grad():
        for sample, passes in ((images, 2), (few, DRAWS - 2)):
            first = objectives.logits(model, sample)
            spread = first.std(1, correction=0).mean().clamp_min(1e-12)
            for _ in range(passes - 1):
                found = float((first - objectives.logits(model, sample)).abs().max() / spread)
                if not found <= DIFFERENT:  # NaN, too
                    return found
                largest = max(largest, found)
    return largest


class MeanOfDraws(nn.Module):
    """A random model as the mean of the logits of several draws, and so its gradients.

    Parameters
    ----------
    model : callable
    draws : int
    seed : int, optional
        The same draws at each forward pass. Default: others each time.
    """

    def __init__(self, model: Model, draws: int = DRAWS, seed: int | None = None) -> None:
        super().__init__()
        self.model, self.draws, self.seed = model, draws, seed

    def forward(self, images: Tensor) -> Tensor:
        """Mean logits, (N, K)."""
        with nullcontext() if self.seed is None else seeded(self.seed, images.device):
            return draw_logits(self.model, images, self.draws).mean(1)


def draw_logits(model: Model, images: Tensor, draws: int = DRAWS) -> Tensor:
    """Logits of several forward passes, (N, draws, K). Each draw is one: some models draw once for a whole batch."""
    return torch.stack([objectives.logits(model, images) for _ in range(draws)], dim=1)


def correct_draws(model: Model, images: Tensor, labels: Tensor, *, seed: int) -> tuple[Tensor, Tensor]:
    """In how many of `DRAWS` draws each image is classified correctly, (N,), and what is predicted most often, (N,)."""
    with torch.no_grad(), seeded(seed, images.device):
        logits = draw_logits(model, images)
    correct = objectives.margin(logits.flatten(0, 1), labels.repeat_interleave(DRAWS)) > 0
    return correct.reshape(len(images), DRAWS).sum(1), logits.argmax(2).mode(1).values


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """torch's random numbers start at this seed, and go on as before afterwards. Those of other libraries are not changed."""
    index = [] if device.type == "cpu" else [device.index or 0]
    options = {"device_type": device.type} if index else {}
    with torch.random.fork_rng(devices=index, **options):
        torch.default_generator.manual_seed(seed)
        if index:
            torch.get_device_module(device).manual_seed(seed)
        yield


def mean_over_draws(model: Model, labels: Tensor, loss: str) -> Objective:
    """The expected loss: maximizes the mean of `DRAWS` draws; its criterion is the share of them that is misclassified.

    Parameters
    ----------
    model : callable
        Images (N, C, H, W) to logits (N, K), other ones each time.
    labels : Tensor, (N,), int64
    loss : {"margin", "cross_entropy", "dlr"}

    References
    ----------
    Athalye et al. 2018, "Obfuscated Gradients Give a False Sense of Security", section 4.2: gradients of an expectation.
    """
    repeated = labels.repeat_interleave(DRAWS)
    single = objectives.untargeted(model, repeated, loss)

    def forward(images: Tensor) -> Tensor:
        return draw_logits(model, images)

    def objective(outputs: Tensor) -> Tensor:
        return single.objective(outputs.flatten(0, 1)).reshape(-1, DRAWS).mean(1)

    def criterion(outputs: Tensor) -> Tensor:
        margins = single.criterion(outputs.flatten(0, 1)).reshape(-1, DRAWS)
        # of equal shares the one with the higher margins wins
        return (margins >= 0).float().mean(1) + 0.5 / DRAWS * margins.clamp(-1e3, 1e3).mean(1).sigmoid()

    return Objective(forward, objective, criterion)


def eot_attack(
    model: Model,
    images: Tensor,
    labels: Tensor,
    *,
    threat_model: ThreatModel | SpatialTransforms,
    budget: str = "standard",
    starts: Tensor | None = None,
    more: Sequence[Attack] = (),
) -> Tensor:
    """Perturbed images that a random model misclassifies in as many draws as possible: (N, C, H, W).

    In L2, L-inf and L1 with gradients: the gradient attacks of the ensemble on the mean of the logits of `DRAWS` draws, then PGD
    on the mean cross-entropy and on the mean margin of as many draws, from the best image so far, because attacks on the mean
    stop where it is misclassified. Else the attack ensemble on the mean of the logits. Candidates are evaluated on
    other draws. Every forward pass has draws of its own.

    Parameters
    ----------
    model, images, labels
        As in `adaptive_ensemble`.
    threat_model : ThreatModel or SpatialTransforms
    budget : {"quick", "standard", "thorough"}
        10, 50 or 100 steps of PGD on the mean loss; only "thorough" has targeted attacks on the mean.
    starts : Tensor, (N, C, H, W), optional
        Images within the threat model that are candidates, too.
    more : sequence of callable
        Further attacks (model, images, labels) to AttackResult, on the mean of the logits.
    """
    with frozen(model) if isinstance(model, nn.Module) else nullcontext():
        expected = mean_over_draws(model, labels, "margin")
        best, values = images, _criterion(expected, images)
        if starts is not None:
            best, values = _better(expected, starts, best, values)
        for attack in more:
            best, values = _better(expected, attack(MeanOfDraws(model), images, labels).images, best, values)
        if isinstance(threat_model, SpatialTransforms) or _is_l0(threat_model) or not has_gradient(model, images):
            found = adaptive_ensemble(MeanOfDraws(model), images, labels, threat_model=threat_model, budget=budget)
            return _better(expected, found.images, best, values)[0]
        with torch.no_grad():
            classes = objectives.logits(model, images[:1]).shape[1]
        ensemble = gradient_ensemble(threat_model, classes)
        count = len(ensemble) if budget == "thorough" else len(UNTARGETED_ATTACKS)
        found = worst_case(MeanOfDraws(model), images, labels, ensemble[:count])
        best, values = _better(expected, found.images, best, values)
        for loss in ("cross_entropy", "margin"):
            objective, rule = mean_over_draws(model, labels, loss), default_steps(threat_model)
            found = search.maximize(objective, images, threat_model, steps=EOT_STEPS[budget], rule=rule, start=best)
            best, values = _better(expected, found.images, best, values)
    return best


def _is_l0(threat_model: ThreatModel) -> bool:
    return isinstance(threat_model, NormBall) and threat_model.norm == "l0"


def eot_batch_size(images: Tensor) -> int:
    """Images at a time for which the graphs of all draws take as much memory as those of 250 images of 3 x 32 x 32 pixels."""
    return max(1, EOT_VALUES // (DRAWS * images[0].numel()))


def _criterion(expected: Objective, images: Tensor) -> Tensor:
    with torch.no_grad():
        return expected.criterion(expected.forward(images))


def _better(expected: Objective, candidate: Tensor, best: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Of each image the one that is misclassified in more draws, and the criterion of it."""
    found = _criterion(expected, candidate)
    wins = found > values
    return torch.where(per_image(wins, best), candidate, best), torch.where(wins, found, values)
