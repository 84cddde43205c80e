"""Networks of other packages by name: `timm:NAME`, `hf:NAME_OR_PATH`, `torchvision:NAME[@WEIGHTS]`.

The packages are optional and imported only here, where a name asks for them. Normalization and input size are read from their own
configuration. They download weights into their own caches, and honor these offline.
"""

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from notbugs.errors import InputError, one_line
from notbugs.models.libraries.hf import hf_network
from notbugs.models.libraries.network import Asked, LibraryNetwork
from notbugs.models.libraries.timm import timm_network
from notbugs.models.libraries.torchvision import torchvision_network
from notbugs.models.reading import Options


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
        return build(Asked(own, pretrained, outputs, size, options or {}))


@contextmanager
def _one_line_errors(parameter: str, name: str, package: str) -> Iterator[None]:
    """InputError in place of what the package raises for names and weights that it does not have."""
    try:
        yield
    except (InputError, MemoryError, torch.OutOfMemoryError):
        raise
    except ImportError as error:  # of a build for another PyTorch, or a package that it needs
        rule, remedy = f"needs the package {package}, which cannot be imported here", f"pip install --upgrade {package}"
        raise InputError(parameter, rule, one_line(error), remedy) from None
    except OSError as error:  # of the clients for downloads, and of files
        rule = f"needs the weights of {name}, which are not in the cache and cannot be downloaded"
        remedy = "repeat the command where it has a network, or pass a file of weights and --network"
        raise InputError(parameter, rule, f"{type(error).__name__}: {one_line(error)}", remedy) from None
    except Exception as error:  # each package has errors of its own
        rule = f"{name} must be a network for classification of {package}"
        raise InputError(parameter, rule, f"{type(error).__name__}: {one_line(error)}") from None


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


LIBRARIES: dict[str, tuple[str, Callable[[Asked], LibraryNetwork]]] = {
    "timm": ("timm", timm_network),
    "hf": ("transformers", hf_network),
    "torchvision": ("torchvision", torchvision_network),
}
