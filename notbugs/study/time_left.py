"""How long a study still takes: a schedule of the stages left, each as much longer than estimated as those so far were."""

from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

Stage = TypeVar("Stage", bound=Hashable)

ENOUGH = 0.01  # of a stage, from which its progress says how long it takes


def makespan(needs: Mapping[Stage, Collection[Stage]], seconds: Mapping[Stage, float], workers: int) -> float:
    """When the last stage ends, if `workers` stages run at once, each as soon as those that it needs are done.

    Parameters
    ----------
    needs : mapping
        What each stage needs.
    seconds : mapping
        Of the stages that are left, in their order. All others are done.
    workers : int

    Examples
    --------
    >>> makespan({"set": (), "network": ("set",), "other": ()}, {"set": 3.0, "network": 6.0, "other": 5.0}, workers=2)
    9.0
    """
    order = {stage: number for number, stage in enumerate(seconds)}
    left = {stage: {need for need in needs[stage] if need in seconds} for stage in seconds}
    followers: dict[Stage, list[Stage]] = {stage: [] for stage in seconds}
    for stage, needed in left.items():
        for need in needed:
            followers[need].append(stage)
    ready = {stage: 0.0 for stage, needed in left.items() if not needed}  # since when
    ends: dict[Stage, float] = {}
    free = [0.0] * max(1, workers)
    while ready:
        worker = min(range(len(free)), key=free.__getitem__)
        stage = min(ready, key=lambda each: (max(ready[each], free[worker]), order[each]))
        free[worker] = ends[stage] = max(ready.pop(stage), free[worker]) + seconds[stage]
        for follower in followers[stage]:
            if all(need in ends for need in left[follower]):
                ready[follower] = max(ends[need] for need in left[follower])
    return max(ends.values(), default=0.0)


@dataclass
class _Running:
    """A stage that runs: when it began and how far it was, when it got how far last, and by how much."""

    began: float
    first: float
    since: float
    share: float
    step: float = 0.0

    def rate(self, now: float) -> float | None:
        """Seconds of the whole stage as its progress says; None: not yet. Progress that is late makes it longer."""
        done = self.share - self.first
        if done < ENOUGH:
            return None
        return max((self.since - self.began) / done, (now - self.began) / (done + self.step))


class TimeLeft:
    """What is left of a study, in seconds, from the progress of its stages.

    Parameters
    ----------
    estimates : mapping of str to float
        Seconds of each stage, in order.
    needs : mapping of str to collection of str
    kinds : mapping of str to str
        Stages of one kind are taken to be as much longer than estimated as each other.
    workers : int or None
        Stages at once. None: as many as have been seen, since nobody knows how many of those that an executor has do something.
    slower : float
        How many times longer than estimated a stage takes, as long as none has told.

    Examples
    --------
    >>> left = TimeLeft({"a": 10.0, "b": 20.0}, {"a": (), "b": ("a",)}, {}, workers=2)
    >>> left.report("a", 0.0, now=0.0)
    >>> left.seconds(now=0.0)
    30.0
    >>> left.report("a", 0.5, now=10.0)  # twice as long as estimated
    >>> left.seconds(now=10.0)
    50.0
    """

    def __init__(
        self,
        estimates: Mapping[str, float],
        needs: Mapping[str, Collection[str]],
        kinds: Mapping[str, str],
        workers: int | None,
        slower: float = 1.0,
    ) -> None:
        self.estimates, self.needs, self.kinds = estimates, needs, kinds
        self.workers, self.slower, self.most = workers, slower, 1
        self.running: dict[str, _Running] = {}
        self.done: set[str] = set()
        self.took: dict[str, float] = {}  # of stages that are done: seconds of the whole stage

    def report(self, stage: str, share: float, now: float) -> None:
        """How far a stage is, at a time in seconds."""
        if stage not in self.estimates or stage in self.done or (self.workers is None and not share):
            return
        running = self.running.setdefault(stage, _Running(now, share, now, share))
        if share < running.share:  # a set is constructed again, at a larger epsilon
            self.running[stage] = _Running(now, share, now, share)
        elif share > running.share:
            running.since, running.share, running.step = now, share, share - running.share
        self.most = max(self.most, len(self.running))

    def goes_on(self, stage: str, share: float, now: float) -> None:
        """A stage that was interrupted is this far, before it does anything."""
        self.running[stage] = _Running(now, share, now, share)

    def ended(self, stage: str, now: float) -> None:
        """A stage is done. One of which nearly nothing was left says nothing of others."""
        running = self.running.pop(stage, None)
        if stage in self.estimates:
            self.done.add(stage)
        if running and (took := running.rate(running.since) if running.first else now - running.began) is not None:
            self.took[stage] = took

    def seconds(self, now: float) -> float:
        """Until the last stage ends."""
        known = dict(self.took)
        known |= {stage: rate for stage, running in self.running.items() if (rate := running.rate(now)) is not None}
        left: dict[str, float] = {}
        for stage, running in self.running.items():
            if stage in known:
                left[stage] = max(0.0, known[stage] * (1 - running.share) - (now - running.since))
            else:
                left[stage] = max(0.0, self._expected(stage, known) * (1 - running.share) - (now - running.began))
        for stage in self.estimates:
            if stage not in self.running and stage not in self.done:
                left[stage] = self._expected(stage, known)
        return makespan({stage: self.needs.get(stage, ()) for stage in left}, left, self.workers or self.most)

    def _expected(self, stage: str, known: Mapping[str, float]) -> float:
        """Seconds of a stage that has told nothing yet: as much longer than estimated as others of its kind, or as all."""
        alike = [each for each in known if self.kinds.get(each) == self.kinds.get(stage)] or [*known]
        estimated = sum(self.estimates[each] for each in alike)
        return self.estimates[stage] * (sum(known[each] for each in alike) / estimated if estimated > 0 else self.slower)
