"""A control of your own in a study and its report: perturbations whose pixels are shuffled.

    NOTBUGS_EXTENSIONS=own_control notbugs run digits --out runs/own  # in the folder of this file

D_rand teaches the true classes though all of its labels are wrong. Could any change of pixels of this strength do so? This
control shuffles the pixels of each perturbation, and keeps its label and its L2 norm. If classifiers learn nothing from it, the
arrangement of the pixels matters: they are features. It is a row among the controls of the report.

A package registers such a module by an entry point, then no variable is needed:

    [project.entry-points."notbugs.extensions"]
    anything = "my_package.controls"
"""

from typing import TYPE_CHECKING

from notbugs.extensions import Control

if TYPE_CHECKING:  # reports import this module, and no torch
    from notbugs.data import Dataset
    from notbugs.models import Model

CONTROLS = [
    Control(
        "random-labels-shuffled-pixels",
        "own_control:shuffle_pixels",
        title="D_rand, the pixels of each perturbation shuffled",
        rules_out="the size of the perturbations is enough",
        control_of="random-labels",
        short="shuffled pixels",
    )
]


def shuffle_pixels(
    *,
    original: "Dataset",
    relabeled: "Dataset",
    model: "Model",
    seed: int,
) -> "Dataset":
    """The pixels of each perturbation in another order, as large as before."""
    import torch

    from notbugs.construct import rescaled_perturbations

    clean, perturbed = original.pixels(slice(None)), relabeled.pixels(slice(None))
    difference = (perturbed - clean).flatten(2)
    generator = torch.Generator().manual_seed(seed)
    random = torch.rand(len(difference), 1, difference.shape[2], generator=generator)
    order = random.argsort(2).expand_as(difference)
    shuffled = difference.gather(2, order).view_as(clean)
    return rescaled_perturbations(original, relabeled, shuffled).dataset
