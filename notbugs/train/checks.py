"""What `fit` cannot use, each as one error with its remedy, before training or at its first step."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from inspect import signature

import torch
from torch import Tensor, nn

from notbugs.data import Dataset
from notbugs.errors import InputError

LEAST = {"epochs": 1, "batch_size": 1}  # of others 0
MAKES = "must be a function of (model, learning_rate, weight_decay) that returns a torch.optim.Optimizer"
MAKER = "pass train.sgd, or lambda model, rate, decay: torch.optim.SGD(model.parameters(), rate, weight_decay=decay)"
SHAPE = "must be a function of the share of the steps that are done, in (0, 1], that returns a factor of the learning rate"
DECAY = "pass train.step_decay(0.5), or lambda share: 1 - share"
LOSS = "must be a function of (model, images, labels) that returns the loss and the logits"
LOSSES = "pass train.cross_entropy, or a function that ends with: return loss, logits"


def check_numbers(data: Dataset, numbers: Mapping[str, float]) -> None:
    """Raises InputError for no images, and for settings, by name, that are too small or not finite."""
    if not len(data):
        raise InputError("data", "must have images", 0)
    for name, value in numbers.items():
        least = LEAST.get(name, 0)
        if not least <= value < math.inf:
            raise InputError(name, f"must be {least} or more", value)


def check_functions(loss: object, optimizer: object, schedule: object) -> None:
    """Raises InputError for objects of torch in place of functions, and for functions of other arguments."""
    own = loss.forward if isinstance(loss, nn.Module) else loss
    if not _takes(own, 3) or getattr(loss, "__module__", None) == nn.functional.__name__:
        raise InputError("loss", LOSS, _described(loss), LOSSES)
    if not _takes(optimizer, 3):
        raise InputError("optimizer", MAKES, _described(optimizer), MAKER)
    if schedule is not None and not _takes(schedule, 1):
        raise InputError("schedule", SHAPE, _described(schedule), DECAY)


def check_optimizer(made: object, model: nn.Module) -> None:
    """Raises InputError for what is no optimizer, and for one that trains without this model, closures or learning rates."""
    if not isinstance(made, torch.optim.Optimizer):
        raise InputError("optimizer", MAKES, f"a function that returns {_described(made)}", MAKER)
    if not _takes(made.step, 0):
        raise InputError("optimizer", "must step without a closure", type(made).__name__, "pass train.adamw or train.sgd")
    own, held = set(map(id, model.parameters())), {id(each) for group in made.param_groups for each in group["params"]}
    if not own & held:
        raise InputError("optimizer", "must hold parameters of the model", type(made).__name__, MAKER)
    if not all("lr" in group for group in made.param_groups):
        raise InputError("optimizer", "must have a learning rate, lr, in each parameter group", type(made).__name__, MAKER)


def loss_and_logits(found: object) -> tuple[Tensor, Tensor]:
    """What a loss returned. Raises InputError for another thing than a pair of tensors."""
    if isinstance(found, tuple) and len(found) == 2 and isinstance(found[0], Tensor) and isinstance(found[1], Tensor):
        return found
    raise InputError("loss", LOSS, f"a function that returns {_described(found)}", LOSSES)


def factor_of(shape: Callable[[float], float], share: float) -> float:
    """The factor of a schedule at a share of the steps. Raises InputError for what is no finite number of 0 or more."""
    found = shape(share)
    try:
        factor = float(found)
    except (TypeError, ValueError):
        raise InputError("schedule", SHAPE, f"a function that returns {_described(found)}", DECAY) from None
    if not 0 <= factor < math.inf:
        raise InputError("schedule", "must return finite factors of 0 or more", factor, DECAY)
    return factor


def _takes(function: object, count: int) -> bool:
    """Whether a function can be called with so many arguments; a class of torch is none, nor one with some arguments given."""
    inner = function.func if isinstance(function, partial) else function
    kinds = (torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler)
    if not callable(function) or (isinstance(inner, type) and issubclass(inner, kinds)):
        return False
    try:
        signature(function).bind(*range(count))
    except TypeError:
        return False
    except ValueError:  # a function of C may have no signature
        return True
    return True


def _described(value: object) -> str:
    """A value in an error: its class, for a class or a function its name."""
    if isinstance(value, partial):
        return f"partial of {_described(value.func)}"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    name = getattr(value, "__name__", None)
    return f"the function {name}" if name and callable(value) else f"an object of class {type(value).__name__}"
