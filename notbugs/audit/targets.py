"""Classes at which the attacks of an audit are targeted, image by image."""

import torch
from torch import Tensor

from notbugs import construct, data
from notbugs.audit.classifiers import load_classifier
from notbugs.audit.config import TARGET_RULES, AuditConfig
from notbugs.audit.images import attacked_rows, given_targets, test_part
from notbugs.predict import logits


def targets_of(config: AuditConfig) -> Tensor | None:
    """The target of each image of `test_part`, int64 (N,), never its label; None if attacks are not targeted.

    What is random is drawn for all test images, so that an image has the same target however many are attacked.
    """
    if config.target is None:
        return None
    part, every = test_part(config)[0], data.load_dataset(config.data).test
    rows = attacked_rows(config, every)
    if (given := given_targets(config, every)) is not None:
        return torch.tensor([given[row] for row in rows or ()])
    if config.target not in TARGET_RULES:
        return torch.full_like(part.labels, part.classes.index(config.target))
    if config.target == "least-likely":
        found = logits(load_classifier(config, config.model).model, part, config.device)
        return found.scatter(1, part.labels[:, None], torch.inf).argmin(1)
    return construct.random_labels(every.labels, len(every.classes))[rows]
