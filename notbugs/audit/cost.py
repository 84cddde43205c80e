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
    ATTACKS_ON_TRIAL,
    FURTHER_ATTACKS,
    MASKING_QUERIES,
    PIXEL_START_CANDIDATES,
    REFINED,
    REFINED_STEPS,
    TARGET_CLASSES,
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
from notbugs.runs.scheduler import MOST_TIMES_LONGER, default_workers, start_seconds, times_longer
from notbugs.search import NormBall, objectives
from notbugs.stats import wilson_interval

CLOCK: Callable[[], float] = time.perf_counter
PROCESSOR_CLOCK: Callable[[], float] = time.process_time
TIMED_CALLS = 3  # the fastest counts: the first ones are slower
TIMED_IMAGES = 32
TIMED_STEPS = 5
TRIED_STEPS = 10  # of PGD on the timed images: what that leaves correct may go through all attacks
CHECK_GRADIENTS = 200.0  # of each image of the sanity checks, beside one ensemble
# Of the gradients after the first `ATTACKS_ON_TRIAL` further attacks, how many more an image gets that lost at least this share
# of its margin before: as measured (docs/lab-log.md)
GOING_ON = {
    "standard": ((0.0, 0.03), (0.7, 0.07), (0.85, 0.08), (0.95, 0.1)),
    "thorough": ((0.0, 0.06), (0.7, 0.23), (0.85, 0.3)),
}


class Cost(NamedTuple):
    """Passes that an image takes: from `least`, if it is misclassified at once, to `most`. Those of masked images come on top.

    Attributes
    ----------
    least_gradients, most_gradients : float
        Forward and backward passes.
    least_queries, most_queries : float
        Forward passes alone.
    by_margin_lost : tuple of pairs
        (share, gradients): what lies between least and most, by the share of its margin that an image must have lost for it.
    """

    least_gradients: float
    most_gradients: float
    least_queries: float
    most_queries: float
    by_margin_lost: tuple[tuple[float, float], ...] = ()

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
    fixed_seconds : float
        Of `most_seconds`, what fewer images would not save: loading, and the sanity checks.
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
    fixed_seconds: float = 0.0

    def images_within(self, seconds: float) -> int:
        """How many images take at most so long, 0 if none do."""
        each = (self.most_seconds - self.fixed_seconds) / self.images
        return max(0, min(self.images, math.floor((seconds - self.fixed_seconds) / each))) if each > 0 else self.images

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
            f"about {_range(self.least_seconds, self.most_seconds)} {at_once}, from a "
            "few passes that were timed here; longer where gradients look masked"
            f"{unknown}"
        )


def plan(config: AuditConfig, workers: int | None = None, draws: int | None = None) -> AuditPlan:
    """Load everything, time a gradient and a query on a few images, and attack nothing. draws: if known, as of `draws_of`."""
    check_budget(config.budget, "--budget")
    at_once = default_workers(config.device) if workers is None else workers
    part, threats = test_part(config)[0], threat_models(config)
    model, every = search_copy(config, config.model), data.load_dataset(config.data).test
    draws = draws_of(config) if draws is None else draws
    sample = part.select(evenly_spaced(min(TIMED_IMAGES, len(part)), len(part)))
    with blame_failing_image(model, sample, config.device):
        images, labels = sample.pixels(slice(None)).to(config.device), sample.labels.to(config.device)
        gradient = attacks.has_gradient(model, images)
        speed = _speed(model, images, labels, gradient=gradient, one_thread=at_once > 1)
        lost = [None if config.target else _margin_lost(model, images, labels, threat, gradient=gradient) for threat in threats]
    costs, norms, own = {}, set[str](), registered().attacks
    for threat in threats:
        cost = _cost(config.budget, threat, len(part.classes), gradient, first=_norm(threat) not in norms)
        steps = sum(each.steps for each in own if gradient and not each.attack and isinstance(threat, NormBall))
        by_margin_lost = (*cost.by_margin_lost, (-math.inf, float(steps))) if cost.by_margin_lost else ()
        cost = cost._replace(most_gradients=cost.most_gradients + steps, by_margin_lost=by_margin_lost)
        costs[threat_id(config, threat)] = cost
        norms.add(_norm(threat))
    each = [_seconds(cost, speed, shares) for cost, shares in zip(costs.values(), lost, strict=True)]
    start = start_seconds(at_once)
    checks = min(CHECK_IMAGES, len(part)) * (CHECK_GRADIENTS * speed.gradient if gradient else 0)
    ensemble = max((most for _, most in each), default=0) * min(CHECK_IMAGES, len(part))
    least, most = (sum(ends[end] for ends in each) * len(part) * draws for end in (0, 1))
    return AuditPlan(
        images=len(part),
        all_images=len(every),
        threats=costs,
        conditions=conditions(config),
        least_seconds=speed.waited * (start + (least + checks) / at_once),
        most_seconds=speed.waited * (start + (most + checks + ensemble) / at_once),
        workers=at_once,
        not_counted=tuple(each.name for each in own if each.attack),
        fixed_seconds=speed.waited * (start + (checks + ensemble) / at_once),
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
    apgd = spends.apgd_steps * (1 + nearest) if spends.apgd_steps else 0
    parts = [(-math.inf, float(sum(steps for steps, _ in UNTARGETED_ATTACKS) + apgd))]
    in_all = minimum + parts[0][1]
    if (threshold := spends.further_margin_lost) is not None:
        further = [float(each.steps) for each in FURTHER_ATTACKS if each.rank <= nearest]
        trial, others = sum(further[:ATTACKS_ON_TRIAL]), sum(further[ATTACKS_ON_TRIAL:]) + len(REFINED) * REFINED_STEPS
        parts += [(threshold, trial), *((max(threshold, lost), share * others) for lost, share in GOING_ON[budget])]
        in_all += trial + others
    on_all = spends.square_queries + spends.hop_skip_jump_queries if spends.black_box_on_all else 0
    return Cost(minimum, in_all, 0, MASKING_QUERIES + on_all, tuple(parts))


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
    """gradient, query: seconds for one image of a batch on an idle machine. waited: it takes as many times longer on this one."""

    gradient: float
    query: float
    waited: float


def _speed(model: nn.Module, images: Tensor, labels: Tensor, *, gradient: bool, one_thread: bool) -> _Speed:
    """Of the fastest of a few calls. one_thread: as in a worker process beside others."""
    ball = NormBall("l2", 0.1)

    def query() -> Tensor:
        with torch.no_grad():
            return objectives.logits(model, images)

    def gradients() -> Tensor:
        return attacks.pgd(model, images, labels, threat_model=ball, steps=TIMED_STEPS).margins

    threads, on_gpu = torch.get_num_threads(), images.device.type != "cpu"
    try:
        if one_thread:
            torch.set_num_threads(1)
        calls = {work: [_timed(work, on_gpu=on_gpu) for _ in range(TIMED_CALLS)] for work in (query, gradients)[: 1 + gradient]}
    finally:
        torch.set_num_threads(threads)
    wall, processor = (sum(each[clock] for of_work in calls.values() for each in of_work) for clock in (0, 1))
    seconds = {work: min(processor for _, processor in of_work) / len(images) for work, of_work in calls.items()}
    return _Speed(seconds.get(gradients, 0.0) / TIMED_STEPS, seconds[query], times_longer(wall, processor))


def _timed(work: Callable[[], Tensor], *, on_gpu: bool) -> tuple[float, float]:
    """Seconds of the clock, and those that the processor was at work for it, on each of its threads.

    The latter are what it takes on an idle machine; at least half of the former, as a model may wait for another process or a
    network. A processor that waits for a GPU says nothing of other work.
    """
    wall, processor = CLOCK(), PROCESSOR_CLOCK()
    work().cpu()  # waits for a GPU
    taken, at_work = CLOCK() - wall, (PROCESSOR_CLOCK() - processor) / torch.get_num_threads()
    return (taken, taken) if on_gpu else (taken, max(at_work, taken / MOST_TIMES_LONGER))


def _margin_lost(model: nn.Module, images: Tensor, labels: Tensor, threat: Threat, *, gradient: bool) -> Tensor:
    """What a short PGD takes of each image's margin, as `EnsembleState.margin_lost`; without it, of the correct ones nothing."""
    with torch.no_grad():
        clean = -objectives.margin(objectives.logits(model, images), labels)
    found = clean
    if gradient and isinstance(threat, NormBall) and threat.norm != "l0":
        found = attacks.pgd(model, images, labels, threat_model=threat, steps=TRIED_STEPS).margins
    return torch.where(clean < 0, 1 - found / clean, 1.0)


def _seconds(cost: Cost, speed: _Speed, lost: Tensor | None) -> tuple[float, float]:
    """Of one image on average, at least and at most: the ends of the 95 % CI of how many images all attacks are made on.

    lost: `_margin_lost` of the images that were tried; None where that says nothing.
    """
    least = cost.least_gradients * speed.gradient + cost.least_queries * speed.query
    most = cost.most_gradients * speed.gradient + cost.most_queries * speed.query
    if lost is None:
        return least, most
    left = lost < 1
    if not cost.by_margin_lost:
        return least, least + wilson_interval(int(left.sum()), len(left))[1] * (most - least)
    ends = [least, least]
    queries = (-math.inf, (cost.most_queries - cost.least_queries) * speed.query)
    for share, seconds in [queries, *((share, count * speed.gradient) for share, count in cost.by_margin_lost)]:
        interval = wilson_interval(int((left & (lost >= share)).sum()), len(left))
        ends = [end + bound * seconds for end, bound in zip(ends, interval, strict=True)]
    return ends[0], ends[1]


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


def _range(least: float, most: float) -> str:
    """From a duration to another, or the one that both are, rounded.

    Examples
    --------
    >>> _range(9.1, 9.4), _range(9.1, 130)
    ('9 s', '9 s to 2 min')
    """
    ends = _time(least), _time(most)
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)
