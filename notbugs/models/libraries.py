"""Networks of other packages by name: `timm:NAME`, `hf:NAME_OR_PATH`, `torchvision:NAME[@WEIGHTS]`.

The packages are optional and imported only here, where a name asks for them. Normalization and input size are read from their own
configuration. They download weights into their own caches, and honor these offline.
"""

import importlib
import importlib.util
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import torch
from torch import nn

from notbugs.errors import InputError
from notbugs.models.reading import Options, Reading


class LibraryNetwork(NamedTuple):
    """A network of another package.

    Attributes
    ----------
    network : nn.Module
        Normalized images to whatever it returns.
    reading : Reading
        Its normalization and input size.
    classes : tuple of str or None
        Its own names of its outputs.
    options : dict
        What builds the same network without its weights, as JSON can hold it.
    """

    network: nn.Module
    reading: Reading
    classes: tuple[str, ...] | None
    options: Options


class _Asked(NamedTuple):
    """What is asked of a package.

    name: after the prefix. outputs: None: those of the weights. size: (height, width) to be built for; None: its own.
    """

    name: str
    pretrained: bool
    outputs: int | None
    size: tuple[int, int] | None
    options: Options


def is_library_name(name: str) -> bool:
    """Whether a name asks for a network of another package.

    Examples
    --------
    >>> is_library_name("timm:resnet18"), is_library_name("my_models:network")
    (True, False)
    """
    return name.partition(":")[0] in LIBRARIES and ":" in name


def library_network(
    name: str,
    *,
    pretrained: bool,
    outputs: int | None = None,
    size: tuple[int, int] | None = None,
    options: Options | None = None,
    parameter: str = "MODEL",
) -> LibraryNetwork:
    """A network of another package.

    Parameters
    ----------
    name : str
        `timm:NAME`, `hf:NAME_OR_PATH` or `torchvision:NAME[@WEIGHTS]`.
    pretrained : bool
        With its weights, which are downloaded unless they are in the package's cache.
    outputs : int, optional
        Classes: the last layer is a new one with random weights. Default: the network's own.
    size : (int, int), optional
        Height and width that it is built for, where the package can do that.
    options : dict, optional
        Of an earlier `LibraryNetwork`, to build the same again.
    parameter : str
        What named it, for errors.

    Raises
    ------
    InputError
        If the package is not installed, or has no such network or weights.
    """
    library, _, own = name.partition(":")
    package, build = LIBRARIES[library]
    if not own:
        raise InputError(parameter, f"must name a network after {library}:", repr(name))
    if importlib.util.find_spec(package) is None:
        raise InputError(parameter, f"needs the package {package} for {name}", remedy=f"pip install {package}")
    with _one_line_errors(parameter, name, package):
        return build(_Asked(own, pretrained, outputs, size, options or {}))


@contextmanager
def _one_line_errors(parameter: str, name: str, package: str) -> Iterator[None]:
    """InputError in place of what the package raises for names and weights that it does not have."""
    try:
        yield
    except (InputError, MemoryError, torch.OutOfMemoryError):
        raise
    except ImportError as error:  # of a build for another PyTorch, or a package that it needs
        rule, remedy = f"needs the package {package}, which cannot be imported here", f"pip install --upgrade {package}"
        raise InputError(parameter, rule, _one_line(error), remedy) from None
    except OSError as error:  # of the clients for downloads, and of files
        rule = f"needs the weights of {name}, which are not in the cache and cannot be downloaded"
        remedy = "repeat the command where it has a network, or pass a file of weights and --network"
        raise InputError(parameter, rule, f"{type(error).__name__}: {_one_line(error)}", remedy) from None
    except Exception as error:  # each package has errors of its own
        rule = f"{name} must be a network for classification of {package}"
        raise InputError(parameter, rule, f"{type(error).__name__}: {_one_line(error)}") from None


def hub_file(name: str) -> Path | None:
    """The file that `hf:OWNER/REPOSITORY/FILE` names, from the cache or downloaded; None for any other name.

    Raises
    ------
    InputError
        If it is neither in the cache nor can be downloaded.

    Examples
    --------
    >>> hub_file("hf:google/vit-base-patch16-224") is None
    True
    """
    library, _, path = name.partition(":")
    owner, _, rest = path.partition("/")
    repository, _, file = rest.partition("/")
    if library != "hf" or not (owner and repository and file) or Path(path).exists():
        return None
    from huggingface_hub import hf_hub_download

    with _one_line_errors("MODEL", name, "huggingface_hub"):
        return Path(hf_hub_download(repo_id=f"{owner}/{repository}", filename=file))


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]


# ---- timm ------------------------------------------------------------------------------------------------------------------


def _timm(asked: _Asked) -> LibraryNetwork:
    timm = importlib.import_module("timm")
    outputs = {} if asked.outputs is None else {"num_classes": asked.outputs}
    fixed = bool(asked.size) and _timm_config(timm, asked.name).get("fixed_input_size", False)
    sized = {"img_size": asked.size} if fixed else {}
    try:
        network = timm.create_model(asked.name, pretrained=asked.pretrained, **outputs, **sized)
    except (AssertionError, ValueError) as error:
        if not fixed or not asked.size:
            raise
        rule, remedy = f"must be of a size that timm:{asked.name} can be built for", "choose another --resize"
        raise InputError("images", rule, f"{asked.size[1]}x{asked.size[0]} ({_one_line(error)})", remedy) from None
    if asked.outputs is None and getattr(network, "num_classes", 1) == 0:
        remedy = f"fine-tune it: --network timm:{asked.name} --pretrained"
        raise InputError("MODEL", f"timm:{asked.name} must have a classifier", "weights for features alone", remedy)
    config = timm.data.resolve_model_data_config(network)
    reading = Reading(
        mean=_three(config["mean"]),
        std=_three(config["std"]),
        size=tuple(config["input_size"][1:]),
        bicubic=config.get("interpolation") == "bicubic",
    )
    return LibraryNetwork(network, reading, _timm_classes(timm, network) if asked.outputs is None else None, {})


def _timm_config(timm: ModuleType, name: str) -> Options:
    """The configuration of a network's weights, without building it; {} where it is not in the package."""
    if ":" in name:
        return {}
    config = timm.get_pretrained_cfg(name.removeprefix("timm/"), allow_unregistered=True)
    return dict(config.to_dict()) if config else {}


def _timm_classes(timm: ModuleType, network: nn.Module) -> tuple[str, ...] | None:
    """Names of the outputs: in its configuration, or those of ImageNet's subsets, which the package has."""
    config: Options = getattr(network, "pretrained_cfg", {})
    if names := config.get("label_names"):
        return tuple(map(str, names))
    try:
        subset = timm.data.infer_imagenet_subset(network)
        info = timm.data.ImageNetInfo(subset) if subset else None
    except Exception:  # a subset that this version does not have
        return None
    if info is None or info.num_classes() != getattr(network, "num_classes", None):
        return None
    return tuple(info.index_to_description(index) for index in range(info.num_classes()))


# ---- Hugging Face transformers ---------------------------------------------------------------------------------------------


def _hf(asked: _Asked) -> LibraryNetwork:
    transformers = importlib.import_module("transformers")
    auto, outputs = transformers.AutoModelForImageClassification, asked.outputs
    config = (
        transformers.AutoConfig.for_model(**asked.options)
        if asked.options
        else transformers.AutoConfig.from_pretrained(asked.name)
    )
    if outputs is not None:
        config.num_labels = outputs
    if asked.pretrained:
        options = {"config": config, "ignore_mismatched_sizes": outputs is not None, "output_loading_info": True}
        with _silent(transformers):
            network, loaded = auto.from_pretrained(asked.name, **options)
        network = network if outputs is None else network.float()  # to be trained, which half precision does not serve
        _check_loaded(asked, network, {*loaded["missing_keys"], *(key for key, *_ in loaded["mismatched_keys"])})
    else:
        network = auto.from_config(config)
    reading = Reading() if asked.options else _hf_reading(asked.name)
    names = [str(config.id2label.get(index, f"LABEL_{index}")) for index in range(config.num_labels)]
    generic = outputs is not None or all(name == f"LABEL_{index}" for index, name in enumerate(names))
    return LibraryNetwork(
        network, reading, None if generic else tuple(names), {**config.to_diff_dict(), "model_type": config.model_type}
    )


def _check_loaded(asked: _Asked, network: nn.Module, new: set[str]) -> None:
    """Raises InputError for weights that were not loaded: transformers makes them up. new: their names.

    The last layer of a network to train is new; all else is not.
    """
    head = [name for name, module in network.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)][-1:]
    if asked.outputs is not None:
        new = {name for name in new if not head or name.rpartition(".")[0] != head[0]}
    if new:
        remedy = "fine-tune it: --network … --pretrained" if asked.outputs is None else ""
        raise InputError("MODEL", f"hf:{asked.name} must have all its weights", f"none for {sorted(new)[0]}", remedy)


@contextmanager
def _silent(transformers: ModuleType) -> Iterator[None]:
    """No progress bar, and no list of the weights that are new: that the last layer is, is said in one line."""
    logging = transformers.utils.logging
    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()


def _hf_reading(name: str) -> Reading:
    """Normalization and input size in a model's preprocessor_config.json."""
    mixin = importlib.import_module("transformers.image_processing_base").ImageProcessingMixin
    try:
        processor, _ = mixin.get_image_processor_dict(name)
    except OSError:  # it has none
        return Reading()
    return reading_of_processor(processor)


def reading_of_processor(processor: Options) -> Reading:
    """What an image processor of transformers does with pixels, for pixels in [0, 1].

    Parameters
    ----------
    processor : dict
        The content of preprocessor_config.json.

    Examples
    --------
    >>> reading_of_processor({"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"height": 224, "width": 224}}).size
    (224, 224)
    """
    scale = 255 * processor.get("rescale_factor", 1 / 255) if processor.get("do_rescale", True) else 255.0
    offset = 1.0 if processor.get("rescale_offset") else 0.0
    normalizes = processor.get("do_normalize", True) and processor.get("image_mean") is not None
    mean = _three(processor["image_mean"] if normalizes else (0.0,))
    std = _three(processor["image_std"] if normalizes else (1.0,))
    mean, std = tuple((value + offset) / scale for value in mean), tuple(value / scale for value in std)
    plain = all(math.isclose(value, 0, abs_tol=1e-9) for value in mean) and all(math.isclose(value, 1) for value in std)
    size = _square(processor.get("crop_size")) if processor.get("do_center_crop", "crop_size" in processor) else None
    return Reading(
        mean=() if plain else mean,
        std=() if plain else std,
        size=size or (_square(processor.get("size")) if processor.get("do_resize", True) else None),
        bicubic=processor.get("resample") == 3,
        flip_channels=bool(processor.get("do_flip_channel_order")),
    )


def _square(size: object) -> tuple[int, int] | None:
    """Height and width of a processor's size: a number, or a dictionary."""
    if isinstance(size, int):
        return size, size
    if isinstance(size, Mapping):
        height, width = (size.get(side, size.get("shortest_edge")) for side in ("height", "width"))
        return (int(height), int(width)) if height and width else None
    return None


# ---- torchvision -----------------------------------------------------------------------------------------------------------


def _torchvision(asked: _Asked) -> LibraryNetwork:
    models = importlib.import_module("torchvision.models")
    name, _, chosen = asked.name.partition("@")
    if name not in models.list_models(module=models):
        raise InputError("MODEL", f"{name} must be a network for classification of torchvision.models", repr(name))
    available = models.get_model_weights(name)
    if chosen and chosen not in available.__members__:
        raise InputError("MODEL", f"weights of torchvision:{name} must be {', '.join(available.__members__)}", repr(chosen))
    weights = available[chosen] if chosen else available.DEFAULT
    auxiliary = {"aux_logits": False} if name in ("googlenet", "inception_v3") else {}
    plain = {**auxiliary, "init_weights": True} if auxiliary else {}
    if asked.pretrained:
        network = models.get_model(name, weights=weights)
        for head in ("aux1", "aux2", "AuxLogits"):  # they serve training alone
            if hasattr(network, head):
                setattr(network, head, None)
        if auxiliary:
            network.aux_logits = False
    else:
        network = models.get_model(name, weights=None, num_classes=asked.outputs or len(weights.meta["categories"]), **plain)
        if "transform_input" in asked.options:
            network.transform_input = asked.options["transform_input"]
    transforms = weights.transforms()
    crop = transforms.crop_size[0] if isinstance(transforms.crop_size, Sequence) else transforms.crop_size
    reading = Reading(mean=_three(transforms.mean), std=_three(transforms.std), size=(crop, crop))
    if asked.pretrained and asked.outputs is not None:
        replace_head(network, len(weights.meta["categories"]), asked.outputs)
    options = {"transform_input": network.transform_input} if hasattr(network, "transform_input") else {}
    return LibraryNetwork(network, reading, tuple(weights.meta["categories"]) if asked.outputs is None else None, options)


def replace_head(network: nn.Module, before: int, outputs: int) -> None:
    """A new last layer with random weights: the last linear layer, or convolution with kernel 1, of so many outputs."""
    heads = [
        (name, module)
        for name, module in network.named_modules()
        if (isinstance(module, nn.Linear) and module.out_features == before)
        or (isinstance(module, nn.Conv2d) and module.out_channels == before and module.kernel_size == (1, 1))
    ]
    if not heads:
        raise InputError("--network", "must end with a linear layer or a convolution to be fine-tuned", type(network).__name__)
    name, head = heads[-1]
    new: nn.Module
    if isinstance(head, nn.Linear):
        new = nn.Linear(head.in_features, outputs, bias=head.bias is not None)
    else:
        new = nn.Conv2d(head.in_channels, outputs, 1, bias=head.bias is not None)
    owner, _, child = name.rpartition(".")
    setattr(network.get_submodule(owner), child, new)


def _three(values: Sequence[float] | float) -> tuple[float, ...]:
    """One value per channel."""
    given = tuple(map(float, values)) if isinstance(values, Sequence) else (float(values),)
    return given * 3 if len(given) == 1 else given


LIBRARIES: dict[str, tuple[str, Callable[[_Asked], LibraryNetwork]]] = {
    "timm": ("timm", _timm),
    "hf": ("transformers", _hf),
    "torchvision": ("torchvision", _torchvision),
}
