"""What an audit would cost: how many gradients and queries its images can take, and how long one takes here."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from notbugs import attacks, data
from notbugs.attacks import BUDGETS
from notbugs.attacks.budgets import (
    LONG_LOSSES,
    LONG_STEPS,
    LONG_TARGET_CLASSES,
    MASKING_QUERIES,
    PIXEL_START_CANDIDATES,
    REFINED_STEPS,
    TARGET_CLASSES,
    TARGETED_STEPS,
    UNTARGETED_ATTACKS,
    AttackBudget,
    check_budget,
)
from notbugs.audit.classifiers import search_copy
from notbugs.audit.config import AuditConfig
from notbugs.audit.evaluate import CHECK_IMAGES, draws_of
from notbugs.audit.failures import blame_failing_image
from notbugs.audit.images import test_part
from notbugs.audit.threats import Threat, conditions, threat_id, threat_models
from notbugs.data.subset import evenly_spaced
from notbugs.extensions.registry import registered
from notbugs.runs.scheduler import default_workers, start_seconds, times_longer
from notbugs.search import NormBall, objectives

CLOCK: Callable[[], float] = time.perf_counter
TIMED_IMAGES = 32
TIMED_STEPS = 5
CHECK_GRADIENTS = 200.0  # of each image of the sanity checks, beside one ensemble


class Cost(NamedTuple):
    """Passes that an image takes: from `least`, if it is misclassified at once, to `most`. Those of masked images come on top.

    Attributes
    ----------
    least_gradients, most_gradients : float
        Forward and backward passes.
    least_queries, most_queries : float
        Forward passes alone.
    """

    least_gradients: float
    most_gradients: float
    least_queries: float
    most_queries: float

    def __str__(self) -> str:
        gradients = f"{self.least_gradients:,.0f} to {self.most_gradients:,.0f} gradients" if self.most_gradients else ""
        queries = f"{self.least_queries:,.0f} to {self.most_queries:,.0f} queries" if self.most_queries else ""
        return f"{' and '.join(filter(None, (gradients, queries))) or 'nothing'} per image"


@dataclass(frozen=True)
class AuditPlan:
    """What an audit would do.

    Attributes
    ----------
    images, all_images : int
        That would be attacked, and all test images.
    threats : mapping
        What one image costs within each threat model.
    conditions : list of str
        What restricts images and perturbations.
    least_seconds, most_seconds : float
        How long it would take, with `workers` stages at once.
    workers : int
    not_counted : tuple of str
        Registered attacks that are functions, whose time nothing is known of.
    stages : tuple of str
        Those that are left to do.
    parts_done : int
        If above 0, times are as those of so many parts of this audit were.
    """

    images: int
    all_images: int
    threats: Mapping[str, Cost]
    conditions: list[str]
    least_seconds: float
    most_seconds: float
    workers: int
    not_counted: tuple[str, ...] = ()
    stages: tuple[str, ...] = ()
    parts_done: int = 0

    def of_stages(self, left: Sequence[str], every: int, seconds_of_parts: Sequence[float]) -> "AuditPlan":
        """The plan of an audit of which some stages are left to do. seconds_of_parts: of those that are done."""
        if seconds_of_parts:
            each = sum(seconds_of_parts) / len(seconds_of_parts) * len(left) / self.workers
            return replace(self, least_seconds=each, most_seconds=each, stages=(*left,), parts_done=len(seconds_of_parts))
        share = len(left) / every
        return replace(self, least_seconds=share * self.least_seconds, most_seconds=share * self.most_seconds, stages=(*left,))

    @property
    def duration(self) -> str:
        """In words."""
        plural = "" if self.workers == 1 else "s"
        at_once = f"with {self.workers} stage{plural} at once"
        if self.parts_done:
            done = "the part that is" if self.parts_done == 1 else f"the {self.parts_done} parts that are"
            return f"about {_time(self.least_seconds)} {at_once}, if all that is left takes as long as {done} done"
        unknown = f"; without {', '.join(self.not_counted)}, whose time is not known" if self.not_counted else ""
        return (
            f"about {_time(self.least_seconds)} to {_time(self.most_seconds)} {at_once}, from a "
            "few passes that were timed here; longer where gradients look masked"
            f"{unknown}"
        )


def plan(config: AuditConfig, workers: int | None = None) -> AuditPlan:
    """Load everything, time a gradient and a query on a few images, and attack nothing."""
    check_budget(config.budget, "--budget")
    part, threats = test_part(config)[0], threat_models(config)
    model, draws, every = search_copy(config, config.model), draws_of(config), data.load_dataset(config.data).test
    sample = part.select(evenly_spaced(min(TIMED_IMAGES, len(part)), len(part)))
    with blame_failing_image(model, sample, config.device):
        images, labels = sample.pixels(slice(None)).to(config.device), sample.labels.to(config.device)
        gradient = attacks.has_gradient(model, images)
        speed = _speed(model, images, labels, gradient=gradient)
    costs, norms, own = {}, set[str](), registered().attacks
    for threat in threats:
        cost = _cost(config.budget, threat, len(part.classes), gradient, first=_norm(threat) not in norms)
        steps = sum(each.steps for each in own if gradient and not each.attack and isinstance(threat, NormBall))
        costs[threat_id(config, threat)] = cost._replace(most_gradients=cost.most_gradients + steps)
        norms.add(_norm(threat))
    at_once = default_workers(config.device) if workers is None else workers
    start = start_seconds(at_once)
    checks = min(CHECK_IMAGES, len(part)) * (CHECK_GRADIENTS * speed.gradient if gradient else 0)
    ensemble = max((_seconds(cost, speed)[1] for cost in costs.values()), default=0) * min(CHECK_IMAGES, len(part))
    least, most = (sum(_seconds(cost, speed)[end] for cost in costs.values()) * len(part) * draws for end in (0, 1))
    return AuditPlan(
        images=len(part),
        all_images=len(every),
        threats=costs,
        conditions=conditions(config),
        least_seconds=speed.waited * (start + (least + checks) / at_once),
        most_seconds=speed.waited * (start + (most + checks + ensemble) / at_once),
        workers=at_once,
        not_counted=tuple(each.name for each in own if each.attack),
    )


def _norm(threat: Threat) -> str:
    return threat.norm if isinstance(threat, NormBall) else "spatial"


def _cost(budget: str, threat: Threat, classes: int, gradient: bool, *, first: bool) -> Cost:
    """first: whether the minimum-norm attack of this norm is in it, which runs once."""
    spends = BUDGETS[budget]
    if not isinstance(threat, NormBall):
        grid = spends.angles * spends.translations**2
        return Cost(0, spends.spatial_steps if gradient else 0, grid, grid)
    if threat.norm == "l0":
        return _few_pixels_cost(spends, int(threat.epsilon), gradient)
    if not gradient:
        walks = threat.norm != "l1"
        minimum = spends.minimum_norm_queries if first and walks else 0
        most = spends.square_queries_without_gradients + (spends.hop_skip_jump_queries if walks else 0)
        return Cost(0, 0, minimum, minimum + most)
    nearest = min(TARGET_CLASSES, classes - 1)
    minimum = 10 * spends.minimum_norm_rounds + nearest if first else 0
    most = minimum + sum(steps for steps, _ in UNTARGETED_ATTACKS)
    if spends.targeted_margin_lost is not None:
        most += nearest * TARGETED_STEPS
    if spends.long_margin_lost is not None:
        most += LONG_STEPS * (len(LONG_LOSSES) + min(LONG_TARGET_CLASSES, nearest) + spends.restarts) + REFINED_STEPS
    most += spends.apgd_steps * (1 + nearest) if spends.apgd_steps else 0
    on_all = spends.square_queries + spends.hop_skip_jump_queries if spends.black_box_on_all else 0
    return Cost(minimum, most, 0, MASKING_QUERIES + on_all)


def _few_pixels_cost(spends: AttackBudget, pixels: int, gradient: bool) -> Cost:
    """L0. Each candidate is a query; where candidates are ranked, a pixel takes two gradients in each round."""
    rounds, random_rounds = (1 + (each if pixels > 1 else 0) for each in (spends.pixel_exchanges, spends.random_pixel_exchanges))
    random = random_rounds * spends.random_pixel_candidates
    if not gradient:
        return Cost(0, 0, 0, random * pixels)
    starts = spends.pixel_starts if pixels > 1 else 0
    first, *others = spends.ranked_pixel_candidates
    queries = rounds * (first + starts * PIXEL_START_CANDIDATES) + sum(others) + MASKING_QUERIES
    queries += random if spends.black_box_on_all else 0
    return Cost(0, 2 * pixels * (rounds * (1 + starts) + len(others)), 0, queries * pixels)


class _Speed(NamedTuple):
    """gradient, query: seconds for one image of a batch. waited: `times_longer`."""

    gradient: float
    query: float
    waited: float


def _speed(model: nn.Module, images: Tensor, labels: Tensor, *, gradient: bool) -> _Speed:
    """The fastest of two tries; beside other work all takes as many times longer as these passes did."""
    ball = NormBall("l2", 0.1)

    def query() -> None:
        with torch.no_grad():
            objectives.logits(model, images)

    def gradients() -> None:
        attacks.pgd(model, images, labels, threat_model=ball, steps=TIMED_STEPS)

    wall, processor = CLOCK(), time.process_time()
    of_gradient = min(_timed(gradients), _timed(gradients)) / TIMED_STEPS if gradient else 0.0
    of_query = min(_timed(query), _timed(query))
    waited = times_longer(CLOCK() - wall, time.process_time() - processor)
    if images.device.type != "cpu":
        waited = 1.0  # a processor that waits for a GPU says nothing of other work
    return _Speed(of_gradient / len(images), of_query / len(images), waited)


def _timed(work: Callable[[], None]) -> float:
    began = CLOCK()
    work()
    return CLOCK() - began


def _seconds(cost: Cost, speed: _Speed) -> tuple[float, float]:
    """Of one image, at least and at most."""
    return (
        cost.least_gradients * speed.gradient + cost.least_queries * speed.query,
        cost.most_gradients * speed.gradient + cost.most_queries * speed.query,
    )


def _time(seconds: float) -> str:
    """A duration, rounded.

    Examples
    --------
    >>> [_time(seconds) for seconds in (4.2, 130, 9000)]
    ['4 s', '2 min', '2.5 h']
    """
    if seconds < 100:
        return f"{math.ceil(seconds) if seconds < 4 else seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
