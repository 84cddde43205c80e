"""Networks that begin with the weights of another one, a robust one for example, and a new last layer."""

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from notbugs.errors import InputError
from notbugs.models import checkpoint, torch_files
from notbugs.models.classifier import Model, WrappedClassifier, head_name
from notbugs.models.factory import build
from notbugs.models.libraries import hub_file, is_library_name, library_network
from notbugs.models.reading import AdaptedClassifier
from notbugs.models.weights import clean_weights, fitted, left_out, start_from


def build_from(
    source: str, network: str, *, shape: Sequence[int], classes: int, seed: int = 0, layer: str | None = None
) -> Model:
    """Build a network with the weights of a trained one; its last layer is new, with random weights that follow the seed.

    Parameters
    ----------
    source : str
        A file: .safetensors that `save` wrote, or weights of PyTorch, also in the layout of MadryLab's robust networks.
        `hf:OWNER/REPOSITORY/FILE`: such a file on the hub. `timm:NAME`, `hf:NAME`, `torchvision:NAME[@WEIGHTS]`.
    network : str
        What the weights in a file belong to, as in `build`. A file that `save` wrote and a name decide it themselves.
    shape : sequence of int
        (C, H, W) of an image.
    classes : int
    seed : int
    layer : str, optional
        As in `build`.

    Raises
    ------
    InputError
        If there are no such weights or they do not fit.

    Examples
    --------
    >>> import tempfile
    >>> robust = build("small", shape=(1, 8, 8), classes=10, width=4, seed=1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     checkpoint.save(robust, f"{folder}/robust.safetensors")
    ...     model = build_from(f"{folder}/robust.safetensors", "small", shape=(1, 8, 8), classes=3)
    >>> bool((next(model.body.parameters()) == next(robust.body.parameters())).all()), model.head.out_features
    (True, 3)
    """
    path = hub_file(source) or Path(source)
    if is_library_name(source) and not path.is_file():
        return build(source, shape=shape, classes=classes, seed=seed, pretrained=True, layer=layer)
    if not path.is_file():
        remedy = "give a file, hf:OWNER/REPOSITORY/FILE, or timm:NAME, hf:NAME or torchvision:NAME"
        raise InputError("--robust-model", "no such model", source, remedy)
    if path.suffix == ".safetensors" and path.with_suffix(".json").exists():
        known, _ = checkpoint.load(path, network)
        architecture = {**known.architecture, "shape": list(shape), "classes": classes, "layer": layer}
        model = build(**architecture, seed=seed)
        (inner, head), (own, _) = _innermost(model), _innermost(known)
        start_from(inner, own.state_dict(), source, str(architecture["name"]), head)
        return model
    if kind := torch_files.program_kind(path):
        raise InputError("--robust-model", "must hold weights, which can be trained further", f"{source}, {kind}")
    found = torch_files.load_file(path)
    assert isinstance(found, torch_files.Checkpoint)  # it is no program
    return _with_weights(found, source, network, shape, classes, seed, layer)


def _with_weights(
    found: torch_files.Checkpoint, source: str, network: str, shape: Sequence[int], classes: int, seed: int, layer: str | None
) -> Model:
    """A network with the weights of a file, and the normalization that the file or the network's package holds."""
    cleaned = clean_weights(found.weights)
    known = library_network(network, pretrained=False, parameter="--network").reading if is_library_name(network) else None
    mean, std = (
        (cleaned.reading.mean, cleaned.reading.std) if cleaned.reading.mean else (known.mean, known.std) if known else ((), ())
    )
    own = ":" in network and not mean  # a network of one's own gets pixels in [0, 1], as where it is attacked
    model = build(
        network,
        shape=shape,
        classes=classes,
        seed=seed,
        mean=mean or ([0.0] * shape[0] if own else None),
        std=std or ([1.0] * shape[0] if own else None),
        layer=layer,
    )
    inner, head = _innermost(model)
    start_from(inner, fitted(cleaned, inner), source, network, head)
    outside = left_out(cleaned.weights, inner)
    model.notes = (*model.notes, *found.notes, *([outside] if outside else []))
    return model


def _innermost(model: Model) -> tuple[nn.Module, str]:
    """The network that was built, without what this package puts around it, and the name of its last layer."""
    inner: nn.Module = model
    head = head_name(model)
    while isinstance(inner, WrappedClassifier | AdaptedClassifier):
        inner, head = inner.network, head.removeprefix("network.")
    return inner, head
