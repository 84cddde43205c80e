"""Networks as people have them, adapted to images (N, C, H, W) in [0, 1] and logits (N, K).

What a network takes and returns is tried on a few images: `adapt`. What was found is a `Reading`, and said.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from notbugs.data import Dataset
from notbugs.data.subset import evenly_spaced
from notbugs.errors import InputError
from notbugs.models.reading import AdaptedClassifier, FixedProgram, Reading, described, padded, read_single, scores, several

SINGLE_OUTPUT_IMAGES = 100  # on which a single output is told to be a logit or a probability
SIZES = (
    8,
    16,
    28,
    32,
    48,
    64,
    75,
    96,
    112,
    128,
    160,
    192,
    224,
    240,
    256,
    260,
    299,
    320,
    331,
    384,
    448,
    512,
)  # tried for --resize
MOST_PIXELS = 2**22  # of a batch that is tried: all batches below for 64x64, up to 27 images of 224x224
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)  # tried for a network that takes no large batch
ONE_SIZE = (*BATCH_SIZES, 10, 20, 25, 50, 100, 200)  # tried for a network that takes no batch of two
LARGE_BATCH = 250  # images at once that attacks give to a network on a CPU
TRIED_PIXELS = 2**20  # of a large batch that is tried: a second at most of small networks


class Adapted(NamedTuple):
    """A network that was adapted, if it had to be, and what was decided: one sentence each."""

    network: nn.Module
    notes: tuple[str, ...]


def adapt(
    network: nn.Module, part: Dataset, name: str = "model", given: Reading | None = None, classes: Sequence[str] | None = None
) -> Adapted:
    """A network adapted to the images of a data set and to its classes: what it takes and returns is tried on a few images.

    Parameters
    ----------
    network : nn.Module
        Set to evaluation mode.
    part : Dataset
    name : str
        The network's, for errors.
    given : Reading, optional
        What is known of it.
    classes : sequence of str, optional
        Names of its outputs, in order. Default: those of the data set.

    Returns
    -------
    Adapted
        The network itself if it takes such images and returns a tensor of logits, or if nothing that was tried works.

    Raises
    ------
    InputError
        If it takes images of another size, or gray ones where these are in color.

    Examples
    --------
    >>> from notbugs import data
    >>> digits = data.load("digits").test
    >>> network = nn.Sequential(nn.Conv2d(3, 10, 8))
    >>> adapted = adapt(network, digits)
    >>> adapted.notes, adapted.network(digits.pixels(slice(0, 4))).shape
    (('its outputs, (2, 10, 1, 1), are flattened', 'it takes RGB: the gray channel is repeated three times'), torch.Size([4, 10]))
    """
    if not len(part):
        return Adapted(network, ())
    reading, notes, classes = given or Reading(), list[str](), part.classes if classes is None else classes
    network, dtype, words = _precision(settled(network), reading.dtype)
    reading, notes = replace(reading, dtype=dtype), notes + words
    sample, trial = part.pixels(_two(len(part))), _Trial(network, len(classes))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        if initialize_lazy(network, AdaptedClassifier(nn.Identity(), reading, 1).inputs(sample)):
            notes.append("its lazy layers had no weights, and were initialized at random")
    if reading.size and tuple(sample.shape[2:]) != reading.size:
        notes.append(
            f"its first layer resizes images from {_pixels(sample.shape[2:])} to {_pixels(reading.size)}, its input size"
        )
    if sample.shape[1] == 1 and len(reading.mean) == 3:
        reading = replace(reading, repeat_gray=True)
    if reading.repeat_gray:
        notes.append("it takes RGB: the gray channel is repeated three times")
    known = reading
    found = _first_that_works(trial, sample, known, (known.batch_size,))
    if found is None:
        _raise_if_other_images(trial, sample, known, name)
        sizes = [size for size in ONE_SIZE if size * sample[0].numel() <= MOST_PIXELS]
        found = _first_that_works(trial, sample, known, sizes) if known.batch_size is None else None
    if found is None:
        return Adapted(network, tuple(notes))
    reading, outputs = found
    reading = _within_limits(trial, part, replace(reading, copy=trial.changes_input(sample, reading)))
    if several(outputs, reading.batch_size or len(sample), len(classes)):
        rule, got = "must return one table of logits", f"{described(outputs)}, of which several could be it"
        raise InputError(
            name, rule, got, "return one of them; of an ensemble the mean: from a function of yours, module:function"
        )
    notes += [*_output_notes(outputs), *_input_notes(reading, known)]
    table = scores(outputs, len(sample), len(classes))
    if table is not None and table.shape[1] == 1 and len(classes) == 2:
        network, output, said = _single_output(network, reading, part, classes)
        reading, notes = replace(reading, output=output), [*notes, said]
    columns = len(classes) if table is None or table.shape[1] == 1 else table.shape[1]
    if reading == Reading() and trial.is_plain(sample):
        return Adapted(network, tuple(notes))
    return Adapted(AdaptedClassifier(network, reading, columns), tuple(notes))


def settled(network: nn.Module) -> nn.Module:
    """The network in evaluation mode; a program of TorchScript or torch.export, which does not know it, as a module that does."""
    if isinstance(network, torch.jit.ScriptModule):
        return FixedProgram(network.eval())
    try:
        return network.eval()
    except NotImplementedError:  # torch.export: the mode is a part of the graph
        return FixedProgram(network)


def refuse_meta(network: nn.Module, parameter: str, name: str) -> None:
    """Raises InputError for a network with parameters or buffers on the device `meta`, which have no values.

    parameter, name: what named it, for the error.
    """
    tensors = [*network.named_parameters(), *network.named_buffers()]
    if empty := [place for place, tensor in tensors if tensor.is_meta]:
        got = f"{len(empty)} of {len(tensors)} tensors on the device meta, {empty[0]} for one"
        remedy = "load its weights: network.load_state_dict(torch.load('weights.pt'), assign=True)"
        raise InputError(parameter, f"{name} must have its weights", got, remedy)


def initialize_lazy(network: nn.Module, inputs: Tensor) -> bool:
    """Give lazy layers the shapes that these inputs lead to, and random weights. Returns whether there were any."""
    if not any(is_lazy(tensor) for tensor in [*network.parameters(), *network.buffers()]):
        return False
    modes = [(module, module.training) for module in network.modules()]
    with torch.no_grad():
        network.eval()(inputs)
    for module, training in modes:
        module.training = training
    return True


class _Trial(NamedTuple):
    """A network that is tried; classes: how many there are."""

    network: nn.Module
    classes: int

    def __call__(self, images: Tensor, reading: Reading) -> object:
        """What it returns for images. It may raise anything."""
        step = reading.batch_size or len(images)
        with torch.no_grad():
            outputs = self.network(self._inputs(images, reading))
        if scores(outputs, step, self.classes) is None:
            raise _NoScoresError(described(outputs))
        return outputs

    def _inputs(self, images: Tensor, reading: Reading) -> Tensor:
        """What the network is given: a copy, which it may change."""
        step = reading.batch_size or len(images)
        return AdaptedClassifier(self.network, replace(reading, copy=True), self.classes).inputs(padded(images[:step], step))

    def changes_input(self, images: Tensor, reading: Reading) -> bool:
        """Whether it changes what it is given, or would: a ReLU in place changes no pixels of [0, 1], but autograd refuses it."""
        given, before = self._inputs(images, reading), self._inputs(images, reading)
        with torch.no_grad():
            self.network(given)
        if not torch.equal(given, before):
            return True
        try:
            with torch.enable_grad():
                self.network(before.requires_grad_())
        except Exception as error:  # a user's own code may raise anything
            return "in-place" in str(error)
        return False

    def is_plain(self, images: Tensor) -> bool:
        """Whether it returns float32 (N, K) for images as they are, also for one alone: some squeeze that."""
        with torch.no_grad():
            outputs = [self.network(images), self.network(images[:1])]
        return all(isinstance(one, Tensor) and one.dim() == 2 and one.dtype == torch.float32 for one in outputs)

    def works(self, images: Tensor, reading: Reading) -> bool:
        """Whether it returns scores."""
        try:
            self(images, reading)
        except Exception:  # a user's own code may raise anything
            return False
        return True


class _NoScoresError(Exception):
    """A network ran, but returned nothing that could be scores."""


def _first_that_works(
    trial: _Trial, sample: Tensor, given: Reading, batch_sizes: Sequence[int | None]
) -> tuple[Reading, object] | None:
    """The first way to give the images to the network at which it returns scores, and its outputs."""
    for reading in _readings(sample, given, batch_sizes):
        try:
            outputs = trial(sample, reading)
        except _NoScoresError:
            if reading == given:
                return None  # it takes the images: what it returns is the caller's matter
        except Exception:  # a user's own code may raise anything
            continue
        else:
            if reading.batch_size or trial.works(sample[:1], reading):
                return reading, outputs
            if trial.works(torch.cat([sample, sample[:1]]), reading):  # else it takes batches of two alone
                return replace(reading, least=2), outputs
    return None


def _within_limits(trial: _Trial, part: Dataset, reading: Reading) -> Reading:
    """The reading, with the largest batch that the network takes if it takes no large one."""
    pixels = part.pixels([0]).numel() if reading.size is None else 3 * reading.size[0] * reading.size[1]
    count = min(len(part), LARGE_BATCH, TRIED_PIXELS // pixels)
    if reading.batch_size or count < 3 or trial.works(part.pixels(slice(0, count)), reading):
        return reading
    sizes = [size for size in BATCH_SIZES if size < count]
    most = next((size for size in reversed(sizes) if trial.works(part.pixels(slice(0, size)), reading)), None)
    return replace(reading, most=most)


def _readings(sample: Tensor, given: Reading, batch_sizes: Sequence[int | None]) -> Iterator[Reading]:
    """Ways to give images to a network, the likeliest first."""
    gray = sample.shape[1] == 1 and not given.repeat_gray
    for batch_size in batch_sizes:
        one = replace(given, batch_size=batch_size)
        yield one
        if gray:
            yield replace(one, repeat_gray=True)
        yield replace(one, layout="N x H x W x C")
        if gray:
            yield replace(one, repeat_gray=True, layout="N x H x W x C")
            yield replace(one, layout="N x H x W")
        yield replace(one, layout="flat")


def _raise_if_other_images(trial: _Trial, sample: Tensor, given: Reading, name: str) -> None:
    """Raises InputError if the network takes images of another size, or gray ones in place of these in color."""
    shape = tuple(sample.shape[1:])
    gray = len(shape) and shape[0] == 3 and trial.works(sample.mean(1, keepdim=True), given)
    if gray:
        remedy = "make gray copies of the images, or a network whose first layer does it"
        raise InputError(name, "takes gray images, of one channel", f"images of shape {shape}", remedy)
    if trial.works(sample, given):
        return
    for size in SIZES:
        for reading in (given, replace(given, repeat_gray=shape[0] == 1), replace(given, layout="N x H x W x C")):
            if trial.works(sample.new_zeros((len(sample), shape[0], size, size)), reading):
                rule = f"takes images of {size}x{size} pixels"
                raise InputError(name, rule, _pixels(shape[1:]), f"use --resize {size}")


def _two(count: int) -> list[int]:
    """Two images of a data set, as far apart as possible."""
    return [0, count - 1]


def _pixels(size: Sequence[int]) -> str:
    """Width and height as people write them."""
    return f"{size[1]}x{size[0]}"


def _output_notes(outputs: object) -> list[str]:
    if isinstance(outputs, Tensor):
        return [f"its outputs, {described(outputs)}, are flattened"] if outputs.dim() > 2 else []
    named = isinstance(getattr(outputs, "logits", None), Tensor) or (isinstance(outputs, Mapping) and "logits" in outputs)
    return [] if named else [f"of its outputs, {described(outputs)}, the logits are taken"]


def _input_notes(reading: Reading, given: Reading) -> list[str]:
    notes = ["it changes its input: it gets a copy of the images"] if reading.copy else []
    if reading.repeat_gray and not given.repeat_gray:
        notes.append("it takes RGB: the gray channel is repeated three times")
    if reading.layout != given.layout:
        notes.append("it takes flattened images" if reading.layout == "flat" else f"it takes images as {reading.layout}")
    if reading.batch_size:
        images = "1 image" if reading.batch_size == 1 else f"{reading.batch_size} images"
        notes.append(f"it takes {images} at a time: the last batch is filled up")
    if reading.least > 1:
        notes.append("it takes no batch of one image: a second one is added")
    if reading.most:
        notes.append(f"it takes no large batches: it gets {reading.most} images at a time at most")
    return notes


# ---- precision -------------------------------------------------------------------------------------------------------------


def _precision(network: nn.Module, wanted: torch.dtype | None) -> tuple[nn.Module, torch.dtype | None, list[str]]:
    """The network, the type of its inputs, and what is said of it. Half precision becomes single where that can be done."""
    floating = [each.dtype for each in network.parameters() if each.is_floating_point()]
    dtype = wanted or (floating[0] if floating else torch.float32)
    if dtype in (torch.float16, torch.bfloat16) and not isinstance(network, FixedProgram):
        return network.float(), None, [f"its weights, in {str(dtype)[6:]}, are computed with in float32"]
    if dtype != torch.float32:
        return network, dtype, [f"it computes in {str(dtype)[6:]}"]
    return network, None, []


# ---- one output ------------------------------------------------------------------------------------------------------------


def _single_output(network: nn.Module, reading: Reading, part: Dataset, classes: Sequence[str]) -> tuple[nn.Module, str, str]:
    """The network, what its one output is, and the words for it."""
    first, second = classes
    if (place := _last_sigmoid(network, reading, part)) is not None:
        owner, _, child = place.rpartition(".")
        setattr(network.get_submodule(owner), child, nn.Identity())
        return (
            network,
            "logit",
            f"its one output, before its last layer, a sigmoid, is the logit of {second} against {first}",
        )
    sample = part.pixels(evenly_spaced(min(SINGLE_OUTPUT_IMAGES, len(part)), len(part)))
    model = AdaptedClassifier(network, replace(reading, output="logit"), 2).eval()
    with torch.no_grad():
        values = torch.cat([model(images)[:, 1] for images in torch.split(sample, 10)])
    return network, *read_single(values.min().item(), values.max().item(), len(sample), classes)


def _last_sigmoid(network: nn.Module, reading: Reading, part: Dataset) -> str | None:
    """The name of the sigmoid that the network ends with, if it is a module that runs once."""
    ran: list[tuple[str, Tensor]] = []
    named = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Sigmoid) and name]
    try:
        handles = [
            module.register_forward_hook(lambda _, __, output, name=name: ran.append((name, output))) for name, module in named
        ]
    except RuntimeError:  # TorchScript
        return None
    images = part.pixels(_two(len(part)))
    try:
        with torch.no_grad():
            step = reading.batch_size or len(images)
            inputs = AdaptedClassifier(network, reading, 2).inputs(padded(images, step))
            outputs = scores(network(inputs), step, 1)
    finally:
        for handle in handles:
            handle.remove()
    names = [name for name, _ in ran]
    if not ran or outputs is None or names.count(names[-1]) > 1 or ran[-1][1].numel() != outputs.numel():
        return None
    return names[-1] if torch.equal(ran[-1][1].float().reshape(-1), outputs.reshape(-1)) else None
