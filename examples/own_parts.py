"""A construction and a metric of your own in a study and its report, from an objective and an update rule of your own.

    cd examples
    NOTBUGS_EXTENSIONS=own_parts notbugs run digits --out runs/own

Objective: the probability of all wrong classes together. Update rule: steps whose length falls linearly.
The construction minimizes the objective of the robust model within ε. Its classifier is a row of the main table.
The metric is robust accuracy under an attack that maximizes it. It is a column of the table "Metrics of your own".
"""

from typing import TYPE_CHECKING

from notbugs.extensions import Construction, Metric

if TYPE_CHECKING:  # reports import this module, and no torch
    from torch import Tensor, nn

    from notbugs.data import Dataset
    from notbugs.models import Model
    from notbugs.search import NormBall, StepState

CONSTRUCTIONS = [Construction("robust-certain", "own_parts:certain", "images of which the robust model is most certain")]
METRICS = [Metric("own-attack", "own_parts:robust_accuracy", "robust accuracy, own attack")]
EPSILON, STEPS = 0.5, 10  # of the construction, L2; of each search


def certain(*, original: "Dataset", model: "Model", robust_model: "Model", seed: int) -> "Dataset":
    """Each image where the robust model's probability of wrong classes is least, within ε of the original."""
    from notbugs.data import to_8bit
    from notbugs.search import NormBall

    found = search(robust_model, original.pixels(slice(None)), original.labels, NormBall("l2", EPSILON), sign=-1)
    return original.with_images(to_8bit(found))


def robust_accuracy(*, model: "nn.Module", dataset: "Dataset", threat_model: "NormBall", seed: int, device: str) -> "Tensor":
    """Whether each image is classified correctly where the probability of wrong classes is largest."""
    labels = dataset.labels.to(device)
    found = search(model, dataset.pixels(slice(None)).to(device), labels, threat_model, sign=1)
    correct: Tensor = model(found).argmax(1) == labels
    return correct


def search(model: "nn.Module", images: "Tensor", labels: "Tensor", threat_model: "NormBall", sign: int) -> "Tensor":
    """Images within the threat model at which the objective, times `sign`, is largest."""
    from notbugs.search import Objective, maximize

    def wrong_probability(logits: "Tensor") -> "Tensor":
        return sign * (1 - logits.softmax(1).gather(1, labels[:, None])[:, 0])

    def falling_steps(now: "StepState", state: None) -> tuple["Tensor", None]:
        length = threat_model.epsilon * (1 - now.step / now.steps)
        return threat_model.steepest_step(now.images, now.gradient, length), None

    objective = Objective(model, wrong_probability, wrong_probability)
    return maximize(objective, images, threat_model, steps=STEPS, rule=falling_steps).images
