"""`hf:NAME_OR_PATH`: Hugging Face transformers."""

import importlib
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType

from torch import nn

from notbugs.errors import InputError
from notbugs.models.libraries.network import Asked, LibraryNetwork, three
from notbugs.models.reading import Options, Reading


def hf_network(asked: Asked) -> LibraryNetwork:
    """A network of transformers. It raises what transformers raises where there is no such network."""
    transformers = importlib.import_module("transformers")
    auto, outputs = transformers.AutoModelForImageClassification, asked.outputs
    config = (
        transformers.AutoConfig.for_model(**asked.options)
        if asked.options
        else transformers.AutoConfig.from_pretrained(asked.name, trust_remote_code=False)  # by default it asks
    )
    if outputs is not None:
        config.num_labels = outputs
    elif getattr(config, "problem_type", None) == "multi_label_classification":
        rule = f"hf:{asked.name} must be trained to tell one class for each image"
        remedy = "several labels of an image are not supported: make a network of one of them, mine:network"
        raise InputError("MODEL", rule, "problem_type multi_label_classification in config.json", remedy)
    if asked.pretrained:
        options = {
            "config": config,
            "ignore_mismatched_sizes": outputs is not None,
            "output_loading_info": True,
            "trust_remote_code": False,
        }
        with _silent(transformers):
            network, loaded = auto.from_pretrained(asked.name, **options)
        network = network if outputs is None else network.float()  # to be trained, which half precision does not serve
        _check_loaded(asked, network, {*loaded["missing_keys"], *(key for key, *_ in loaded["mismatched_keys"])})
    else:
        network = auto.from_config(config, trust_remote_code=False)
    reading = Reading() if asked.options else _hf_reading(asked.name)
    names = [str(config.id2label.get(index, f"LABEL_{index}")) for index in range(config.num_labels)]
    generic = outputs is not None or all(name == f"LABEL_{index}" for index, name in enumerate(names))
    return LibraryNetwork(
        network, reading, None if generic else tuple(names), {**config.to_diff_dict(), "model_type": config.model_type}
    )


def _check_loaded(asked: Asked, network: nn.Module, new: set[str]) -> None:
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
    mean = three(processor["image_mean"] if normalizes else (0.0,))
    std = three(processor["image_std"] if normalizes else (1.0,))
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
