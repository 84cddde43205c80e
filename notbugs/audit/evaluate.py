"""What is done with some of the images of an audit: the smallest change of each, the verdict at each set, what is kept of it."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from notbugs import attacks, data, search
from notbugs.attacks import sanity_checks
from notbugs.audit.config import (
    AuditConfig,
    Tables,
    Threat,
    blame_failing_image,
    folder_name,
    load_classifier,
    norms_of,
    search_copy,
    test_part,
    threat_models,
)
from notbugs.data.subset import evenly_spaced
from notbugs.runs.scheduler import Progress
from notbugs.search import NormBall, objectives
from notbugs.search.threat_models import per_image

CHECK_IMAGES = 100  # images that the checks are made on
ROUNDS = {"quick": 4, "standard": 10, "thorough": 20}  # of `smallest_radius`, ten gradients each
QUERIES = {"quick": 500, "standard": 2000, "thorough": 10000}  # the same without gradients


def run_checks(audit: AuditConfig, report_progress: Progress) -> Tables:
    """The checks, on a sample of the images, within the largest L-inf or L2 set asked for."""
    part, _ = test_part(audit)
    balls = [one for one in threat_models(audit) if isinstance(one, NormBall) and one.norm in ("l2", "linf") and one.epsilon]
    model, others = load_classifier(audit, audit.model)[0], [search_copy(audit, other) for other in audit.others]
    threat_model, count = balls[-1] if balls else None, CHECK_IMAGES
    while True:
        some = part.select(evenly_spaced(count, len(part)))
        images, labels = some.pixels(slice(None)).to(audit.device), some.labels.to(audit.device)
        try:
            with blame_failing_image(model, some, audit.device):
                found = sanity_checks.run_all(
                    model, images, labels, threat_model=threat_model, budget=audit.budget, others=others
                )
            break
        except (MemoryError, RuntimeError) as error:
            if len(some) < 2 or not data.is_out_of_memory(error):
                raise
            count = len(some) // 2
    words, about = {True: "yes", False: "no", None: "not made"}, {"within": str(threat_model or ""), "n": len(some)}
    rows = [{"check": one.name, **one._asdict(), "passed": words[one.passed], **about} for one in found]
    for row in rows:
        del row["name"]
    return {"checks": rows}


def evaluate_part(audit: AuditConfig, folder: Path, start: int, step: int, report_progress: Progress) -> Tables:
    """Every step-th image from `start`: what the model reads in it as it is and at each set, and its smallest changes."""
    part, sets = test_part(audit)[0].select(slice(start, None, step)), threat_models(audit)
    model = search_copy(audit, audit.model)
    norms = norms_of(sets)

    def look(images: Tensor, index: Tensor) -> tuple[Tensor, ...]:
        labels = part.labels[index].to(images.device)
        sizes, reads, stored = attack_batch(
            model, images, labels, sets, audit.budget, lambda share: report_progress("", share, "")
        )
        return sizes, reads, stored

    with blame_failing_image(model, part, audit.device):
        sizes, reads, stored = data.map_batches(look, part, batch_size=len(part), device=audit.device)
    for place, one in enumerate(sets):
        where = folder / "parts" / f"{start:08d}-{folder_name(one)}"
        shutil.rmtree(where, ignore_errors=True)  # of a stage that was stopped between writing and being marked as done
        data.export(part.with_images(stored[:, place]), where, "npz", card="A part of an audit.")
    names = list(part.classes)
    labels = [names[label] for label in part.labels.tolist()]
    looked = [
        {
            "number": start + step * row,
            "file": file,
            "label": labels[row],
            "read": names[int(reads[row, 0, 0])],
            "fooled": int(reads[row, 0, 2]),
            **{f"smallest_{norm}": float(sizes[row, place]) for place, norm in enumerate(norms)},
        }
        for row, file in enumerate(part.names)
    ]
    told = [
        {
            "number": start + step * row,
            "file": file,
            "label": labels[row],
            "within": str(one),
            "fooled": int(reads[row, place, 2]),
            "by_smallest": int(reads[row, place, 3]),
            "read": names[int(reads[row, place, 0])],
            "stored": names[int(reads[row, place, 1])],
            "stored_fools": int(reads[row, place, 4]),
        }
        for place, one in enumerate(sets, 1)
        for row, file in enumerate(part.names)
    ]
    return {"looked": looked, "reads": told}


def attack_batch(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    sets: Sequence[Threat],
    budget: str,
    progress: Callable[[float], None] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """A batch at every set. Returns sizes, reads and the attacked images, as stored: uint8 (N, sets, C, H, W).

    sizes: (N, norms) of the smallest change that fools; 0: misread as it is; inf: none found.
    reads: int64 (N, 1 + sets, 5), first as it is: class read, class read as stored, fooled, fooled by the smallest change, fooled
    as stored. A tie, and an answer that is no number, count as fooled.
    """
    gradient = attacks.has_gradient(model, images)
    logits = attacks.clean_logits(model, images, labels)
    calm, wrong = logits.argmax(1), objectives.margin(logits, labels) <= 0
    reads, stored, sizes = [torch.stack([calm, calm, *[wrong.long()] * 3], dim=1)], [], {}
    for number, one in enumerate(sets):
        if progress:
            progress(number / len(sets))
        norm = one.norm if isinstance(one, NormBall) else ""
        if norm and norm not in sizes:
            found = _minimum_norm(model, images, labels, norm, budget, gradient)
            size, near = found.margins.double().where(~wrong, 0.0), found.images.clone()
            sizes[norm] = size
        if not norm:
            size, near = torch.where(wrong, 0.0, torch.inf).double(), images.clone()
        radius = float(one.epsilon) if isinstance(one, NormBall) else 0.0
        by_smallest = size <= radius
        fooled, left = by_smallest.clone(), (~by_smallest).nonzero().squeeze(1)
        if len(left) and (radius or not norm):
            found = attacks.adaptive_ensemble(model, images[left], labels[left], threat_model=one, budget=budget)
            won = left[found.margins >= 0]
            near[won], fooled[won] = found.images[found.margins >= 0], True
            if isinstance(one, NormBall):  # rounding may put a change on the border just outside
                size[won] = one.distance((near[won] - images[won]).double()).clamp_max(radius)
        found_images = torch.where(fooled[:, None, None, None], near, images)
        with torch.no_grad():
            read = objectives.logits(model, found_images).argmax(1)
        kept = _best_8bit(model, images, labels, found_images, fooled, one, gradient)
        with torch.no_grad():
            logits = objectives.logits(model, kept)
        stored_fools = objectives.margin(logits, labels) <= 0
        flags = [each.long() for each in (fooled, by_smallest, stored_fools)]
        reads.append(torch.stack([read, logits.argmax(1), *flags], dim=1))
        stored.append(data.to_8bit(kept))
    columns = torch.stack(list(sizes.values()), dim=1) if sizes else torch.zeros(len(images), 0)
    return columns, torch.stack(reads, dim=1), torch.stack(stored, dim=1)


def _minimum_norm(
    model: nn.Module, images: Tensor, labels: Tensor, norm: str, budget: str, gradient: bool
) -> search.AttackResult:
    """The smallest changes of one norm, inf where none are searched for: in L0, and in L1 without gradients."""
    if norm == "l0" or (norm == "l1" and not gradient):
        return search.AttackResult(images, torch.full(labels.shape, torch.inf, device=images.device))
    if not gradient:
        return attacks.hop_skip_jump(model, images, labels, norm=norm, queries=QUERIES[budget])
    found = attacks.minimum_norm(model, images, labels, norm=norm, rounds=ROUNDS[budget])
    lost = found.margins.isinf().nonzero().squeeze(1)
    if len(lost) and norm != "l1":  # gradients that lead nowhere: the labels will do
        walked = attacks.hop_skip_jump(model, images[lost], labels[lost], norm=norm, queries=QUERIES[budget], starts=images)
        found.images[lost], found.margins[lost] = walked.images, walked.margins
    return found


def _best_8bit(
    model: nn.Module, images: Tensor, labels: Tensor, found: Tensor, fooled: Tensor, one: Threat, gradient: bool
) -> Tensor:
    """What was found, in 8 bits: of itself, the same change stretched, and (with gradients) ten steps further, what fools best.

    A smallest change ends just across the border, where rounding alone can undo it.
    """
    if not isinstance(one, NormBall):
        return (found * 255).round() / 255
    kept, index = one.round_to_8bit(found, images), fooled.nonzero().squeeze(1)
    if one.norm == "l0" or not len(index):
        return kept
    here, wanted, center = found[index], labels[index], images[index]
    goal = objectives.untargeted(model, wanted)
    room = per_image(one.epsilon / one.distance(here - center).clamp_min(1e-6), here)
    tried = [center + share * (here - center) for share in (1 + (room - 1) / 4, 1 + (room - 1) / 2, room)]
    if gradient:
        rule = search.cosine_steps(one, one.epsilon / 2, end=0.1)
        tried.append(search.maximize(goal, center, one, steps=10, rule=rule, start=here).images)
    with torch.no_grad():
        best, value = kept[index], goal.criterion(goal.forward(kept[index]))
        for each in tried:
            rounded = one.round_to_8bit(one.project(each, center), center)
            judged = goal.criterion(goal.forward(rounded))
            wins = judged > value
            best, value = torch.where(per_image(wins, best), rounded, best), torch.where(wins, judged, value)
    kept[index] = best
    return kept
