"""Outputs of a user's classifier: made those of the classes of a data set; and a warning if they stand in another order."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from notbugs import attacks
from notbugs.attacks.sanity_checks import Check
from notbugs.attacks.sanity_checks.class_order import above_chance, class_order, remedy
from notbugs.data import Dataset
from notbugs.data.subset import evenly_spaced
from notbugs.errors import InputError
from notbugs.models.black_box import BlackBox
from notbugs.models.class_map import choice, note, outputs_of_classes
from notbugs.models.class_order import OutputOrder, find_order
from notbugs.models.class_outputs import kind_of, take_own_outputs, with_outputs
from notbugs.models.output_names import ClassMap
from notbugs.predict import predict
from notbugs.search import objectives

PredictionCheck = Callable[[Tensor, Tensor, Sequence[str]], Check]
LABEL_IMAGES = 100  # images whose labels a black box gives tell whether it has others than the data set
KIND_IMAGES = 8  # images whose outputs tell logits from probabilities
CLEAR = 0.5  # accuracy from which numbers of outputs in order are those of the classes in order
ORDER_IMAGES = 2000  # images at most on which the order of the outputs is looked for before any work


def of_classes(
    name: str,
    model: nn.Module,
    names: Sequence[str] | None,
    part: Dataset,
    *,
    dataset: str,
    device: str,
    class_map: ClassMap | None,
) -> tuple[nn.Module, str]:
    """A model whose outputs are the classes of a data set, and what is said of that, "" if nothing is.

    Parameters
    ----------
    name : str
        The model's.
    model : nn.Module
        On its device.
    names : sequence of str, optional
        Names of its outputs.
    part, dataset, device, class_map
        As in `given.check_fit`.

    Raises
    ------
    InputError
        If the model fails, or it is not clear which outputs the classes are.
    """
    first, zero = part.pixels([0]).to(device), torch.zeros(1, dtype=torch.int64, device=device)
    if isinstance(getattr(model, "box", model), BlackBox):
        take_own_outputs(
            model, part.pixels(evenly_spaced(min(LABEL_IMAGES, len(part)), len(part))), class_map, named=names is not None
        )
    try:
        outputs = attacks.clean_logits(model, first, zero).shape[1]
    except InputError as error:
        parameter, rule, got, known = error.args
        if error.__cause__ is not None and _takes_tensors(model, first):
            known = "a function gets arrays of NumPy: return the network itself, which has gradients, or use torch.from_numpy"
        if isinstance(getattr(model, "box", model), BlackBox) and not known and error.__cause__ is None and class_map is None:
            known = f"if it has other outputs, {choice(part.classes)}"
        raise InputError(parameter, rule, got, known) from error.__cause__
    try:
        mapped = outputs_of_classes(name, outputs, names, class_map, part.classes, dataset)
    except InputError as error:
        if class_map is None and outputs > len(part.classes) and (hint := _likely_map(model, part, outputs, names, device)):
            parameter, rule, got, _ = error.args
            raise InputError(parameter, rule, got, f"say which they are: {hint}") from None
        raise
    if mapped.outputs is None:
        return model, note(mapped, "logits", outputs, dataset)
    sample = part.pixels(evenly_spaced(min(KIND_IMAGES, len(part)), len(part))).to(device)
    with torch.no_grad():
        found: Tensor = objectives.logits(model, sample)
    said = note(mapped, kind_of(found), outputs, dataset)
    return with_outputs(model, mapped.outputs, found, part.classes).eval(), said


def _takes_tensors(model: nn.Module, images: Tensor) -> bool:
    """Whether a black box is a function of tensors, which fails on the arrays that it is given."""
    box = getattr(model, "box", model)
    if not isinstance(box, BlackBox):
        return False
    try:
        with torch.no_grad():
            return isinstance(box.function(images), Tensor)  # type: ignore[arg-type]
    except Exception:  # a user's own function may raise anything
        return False


def _likely_map(model: nn.Module, part: Dataset, outputs: int, names: Sequence[str] | None, device: str) -> str:
    """Which outputs the classes seem to be, by the predictions, in words; "" if that is not clear.

    names: of the outputs; "" is none, as of a number that an estimator does not know.
    """
    sample = _sample(part)
    try:
        predicted = predict(model, sample, device)
    except Exception:  # a user's own model may raise anything: that it has too many outputs is the error to be told
        return ""
    used = [place for place in range(outputs) if names is None or len(names) != outputs or names[place]]
    places = np.full(outputs, -1)
    places[used] = range(len(used))
    found = find_order(places[predicted.numpy()], sample.labels.numpy(), part.classes, len(used))
    if found is None and len(used) == len(part.classes) < outputs:  # its numbers in order
        accuracy = float((places[predicted.numpy()] == sample.labels.numpy()).mean())
        found = OutputOrder((*range(len(used)),), accuracy, "") if accuracy >= CLEAR else None
    if found is None:
        return ""
    found = found._replace(outputs=tuple(used[place] for place in found.outputs))
    return f"accuracy is {found.accuracy:.1%} on {len(sample)} images with {remedy(found, part.classes)}"


def prediction_warning(
    model: nn.Module, part: Dataset, device: str, checks: Sequence[PredictionCheck] = (class_order, above_chance)
) -> str:
    """Why a model's accuracies are not to be trusted, known before any work; "" if nothing speaks for that.

    Parameters
    ----------
    model : nn.Module
        Its outputs are those of the classes.
    part : Dataset
        Images on which it is to be accurate: 2,000 of them at most.
    device : str
    checks : sequence of callable
        Of predictions. The first one that fails is told.
    """
    sample = _sample(part)
    try:
        predicted = predict(model, sample, device)
    except Exception:  # a user's own model may raise anything: the work itself says on which image
        return ""
    found = (check(predicted, sample.labels, part.classes) for check in checks)
    failed = next((check for check in found if check.passed is False), None)
    return f"{failed.consequence}: {failed.name}: {failed.observed}. {failed.fix}" if failed else ""


def _sample(part: Dataset) -> Dataset:
    return part.select(evenly_spaced(min(ORDER_IMAGES, len(part)), len(part)))
