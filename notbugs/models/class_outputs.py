"""Models whose outputs are picked or added, so that they are those of the classes of a data set."""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from notbugs.errors import InputError
from notbugs.models.black_box import BlackBox
from notbugs.models.class_map import MOST_OUTPUTS
from notbugs.models.classifier import Classifier, WrappedClassifier
from notbugs.models.output_names import ClassMap
from notbugs.search import objectives

NEAREST = 1e-7  # to 0 and to 1 that a probability comes before its logit is taken
LABELS = 1000  # that a black box which gives numbers is thought to have, unless higher ones are known


class ClassOutputs(nn.Module):
    """Outputs (N, M) to outputs of classes (N, K).

    Of a class with several outputs the probabilities are added: the logarithm of summed exponentials of logits. Outputs that no
    class has are left out, and probabilities are divided by the sum of those that are left. Of a sigmoid for each output, from 0
    to 1 with other sums, the logits are added so: its probabilities are not shares of one.

    Parameters
    ----------
    outputs : sequence of sequence of int
        For each class its outputs.
    sample : Tensor, (n, M)
        A few outputs of the model: logits, probabilities, or predicted labels as `BlackBox` encodes them.

    Examples
    --------
    >>> select = ClassOutputs([[2], [0, 1]], torch.tensor([[0.1, 0.2, 0.7]]))
    >>> select(torch.tensor([[0.1, 0.2, 0.7]]))
    tensor([[0.7000, 0.3000]])
    """

    def __init__(self, outputs: Sequence[Sequence[int]], sample: Tensor) -> None:
        super().__init__()
        most = max(map(len, outputs))
        padded = [[*each, *[each[0]] * (most - len(each))] for each in outputs]
        used = [[True] * len(each) + [False] * (most - len(each)) for each in outputs]
        self.register_buffer("index", torch.tensor(padded).reshape(-1), persistent=False)
        self.register_buffer("used", torch.tensor(used), persistent=False)
        self.kind, self.whole = kind_of(sample), sum(map(len, outputs)) == sample.shape[1]

    def forward(self, outputs: Tensor) -> Tensor:
        """Outputs of the classes, (N, K)."""
        used, chosen = self.get_buffer("used"), outputs.index_select(1, self.get_buffer("index"))
        table = chosen.reshape(len(outputs), *used.shape)
        if self.kind == "probabilities":
            added = (table * used).sum(2)
            return added if self.whole else added / added.sum(1, keepdim=True).clamp_min(torch.finfo(added.dtype).tiny)
        if used.shape[1] == 1:
            return chosen
        if self.kind == "sigmoids":
            table = torch.logit(table, NEAREST)
        kept = table.masked_fill(~used, -torch.inf)
        return kept.amax(2) if self.kind == "labels" else kept.logsumexp(2)


def kind_of(outputs: Tensor) -> str:
    """What a model gives: logits, probabilities that sum to 1, a sigmoid for each output, or labels."""
    if bool(((outputs.abs() == 1).all(1) & ((outputs == 1).sum(1) == 1)).all()):
        return "labels"
    if not bool(((outputs >= 0) & (outputs <= 1 + 1e-3)).all()):
        return "logits"
    return "probabilities" if bool((outputs.sum(1) - 1).abs().max() < 1e-3) else "sigmoids"


class MappedClassifier(WrappedClassifier):
    """A model whose outputs are picked or added by `ClassOutputs`; features are those of the model."""

    def __init__(self, network: nn.Module, outputs: ClassOutputs) -> None:
        super().__init__(network, getattr(network, "layer", ""), None, None, {"name": type(network).__name__})
        self.outputs = outputs

    @property
    def no_gradient(self) -> str:
        """Why the model has no gradients, if it says so itself."""
        return str(getattr(self.network, "no_gradient", ""))

    def forward(self, images: Tensor) -> Tensor:
        """Logits, (N, K)."""
        mapped: Tensor = self.outputs(objectives.logits(self.network, images))
        return mapped

    def features(self, images: Tensor) -> Tensor:
        """Those of the model, (N, F)."""
        method = getattr(self.network, "features", None)
        if not callable(method):
            raise InputError("model", "must have features(images)", type(self.network).__name__, "wrap it: models.wrap")
        features: Tensor = method(images)
        return features


class MappedBlackBox(BlackBox):
    """A black box whose outputs are picked or added by `ClassOutputs`."""

    def __init__(self, black_box: BlackBox, outputs: ClassOutputs, classes: Sequence[str]) -> None:
        super().__init__(black_box.function, classes)
        self.black_box, self.outputs = black_box, outputs
        self.no_gradient = getattr(black_box, "no_gradient", "")

    def forward(self, images: Tensor) -> Tensor:
        """Logits, (N, K)."""
        mapped: Tensor = self.outputs(self.black_box(images))
        return mapped


def take_own_outputs(model: nn.Module, images: Tensor, class_map: ClassMap | None, *, named: bool = False) -> None:
    """Let a black box have as many classes as it has outputs, where these are not the classes of the data set.

    Parameters
    ----------
    model : nn.Module
        A black box, alone or as the attribute `box` of what gives it gradients. Any other stays as it is.
    images : Tensor, (N, C, H, W), in [0, 1]
        A hundred or so: labels beyond the classes are seen in these.
    class_map : ClassMap, optional
        Of a black box that gives the indices of classes: the indices that it may give.
    named : bool
        Whether its outputs have names: then labels are places among these.

    Raises
    ------
    InputError
        If it predicts numbers below 0 that are no names of classes.
    """
    box = getattr(model, "box", model)
    if not isinstance(box, BlackBox):
        return
    given = None
    for few in (images, images[:1]):  # some functions take one image at a time, or few
        try:
            given = np.asarray(box.function(few.cpu().float().numpy().copy()))
        except Exception:  # a user's own function may raise anything; whoever calls the model says so
            continue
        break
    if given is None:
        return
    count = given.shape[1] if given.ndim == 2 and given.shape[1] > 1 and given.dtype.kind in "fiu" else 0
    labels = {*map(str, given.ravel().tolist())} if given.dtype.kind in "iu" else set()
    if not named and given.shape in ((len(few),), (len(few), 1)) and labels:
        mentioned = [int(token) for _, tokens in class_map or () for token in tokens if str(token).isdecimal()]
        are_names, highest = labels <= {*box.classes}, 1 + int(given.max())
        if given.min() < 0 and not are_names:
            raise InputError("model", "must predict indices of classes, from 0, or names of classes", int(given.min()))
        if mentioned:
            count = max(1 + max(mentioned), highest, LABELS)
        elif len(box.classes) < highest <= MOST_OUTPUTS and not are_names:
            count = highest
    if count > len(box.classes) or (0 < count != len(box.classes) and given.ndim == 2):
        box.classes = tuple(map(str, range(count)))


def with_outputs(model: nn.Module, outputs: Sequence[Sequence[int]], sample: Tensor, classes: Sequence[str]) -> nn.Module:
    """The model with the outputs of the classes alone, each the sum of its own; gradients and features stay.

    Parameters
    ----------
    model : nn.Module
        Images (N, C, H, W) to outputs (N, M).
    outputs : sequence of sequence of int
        For each class its outputs.
    sample : Tensor, (n, M)
        Its outputs for a few images.
    classes : sequence of str
        Names of the classes.
    """
    selected = ClassOutputs(outputs, sample).to(sample.device)
    if isinstance(model, BlackBox):
        return MappedBlackBox(model, selected, classes)
    if isinstance(model, Classifier):  # stays one: batch norm is fused only into these
        mapped = copy.deepcopy(model)
        mapped.head = nn.Sequential(mapped.head, selected)
        return mapped
    return MappedClassifier(model, selected)
