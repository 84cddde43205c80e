"""What a model reads of images that noise, blur, fog, contrast and JPEG have changed."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from notbugs.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from notbugs.data import Dataset
from notbugs.models import frozen
from notbugs.scores.accuracy import row

UNCHANGED = "unchanged"


class Corrupted(NamedTuple):
    """rows: corruption, severity (0: unchanged), correct, n, accuracy with its 95 % interval.

    shares: corruption -> (n,) in [0, 1], of each image at how many of the five severities the model reads it.
    """

    rows: list[dict[str, Any]]
    shares: dict[str, np.ndarray]


def corrupted(
    model: nn.Module, part: Dataset, *, seed: int = 0, batch_size: int = 500, device: torch.device | str = "cpu"
) -> Corrupted:
    """Accuracy on a part unchanged and under each corruption at each severity, by `corruptions.corrupt`.

    Source: Hendrycks & Dietterich 2019; what robust training costs there, Gilmer & Hendrycks in the discussion of Ilyas et al.
    """
    model = model.to(device)
    images, rows, shares = part.pixels(slice(None)), list[dict[str, Any]](), dict[str, np.ndarray]()
    for name, severities in ((UNCHANGED, (0,)), *((name, SEVERITIES) for name in CORRUPTIONS)):
        verdicts = []
        for severity in severities:
            changed = corrupt(images, name, severity, seed=seed) if severity else images
            with frozen(model), torch.no_grad():
                said = [model(changed[k : k + batch_size].to(device)).argmax(1).cpu() for k in range(0, len(part), batch_size)]
            right = torch.cat(said) == part.labels
            verdicts.append(right.double().numpy())
            told = row(int(right.sum()), len(part))
            told = {key: told[key] for key in ("correct", "n", "accuracy", "low", "high")}
            rows.append({"corruption": name, "severity": severity, **told})
        shares[name] = np.mean(verdicts, 0)
    return Corrupted(rows, shares)
