"""What every form of a data set is located as."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from notbugs.data.decode import EncodedImage
from notbugs.data.names import Unreadable, is_printable

TEST_SPLITS = ("test", "val", "validation", "valid")  # the first that is there is the test part


class Located(NamedTuple):
    """A data set before decoding: the training part first, then the test part, if there is one.

    Attributes
    ----------
    files : sequence of EncodedImage, or Tensor, uint8 (N, C, H, W)
    labels : list of int, (N,)
    names : list of str, (N,)
    locations : list of str, (N,)
        Where each image is, for messages.
    n_train : int
        Size of the training part; N if there is no test part.
    classes : tuple of str
    form : str
        The form for `data.export`.
    note : str
        What was decided on the way, for the user.
    unreadable : tuple of Unreadable
        Files left out.
    """

    files: Sequence[EncodedImage] | Tensor
    labels: list[int]
    names: list[str]
    locations: list[str]
    n_train: int
    classes: tuple[str, ...]
    form: str
    note: str = ""
    unreadable: tuple[Unreadable, ...] = ()


def are_names(names: Sequence[object], count: int) -> bool:
    """Whether values can serve as image names: `count` different, printable, non-empty strings."""
    valid = all(isinstance(name, str) and name and is_printable(name) for name in names)
    return valid and len(set(names)) == len(names) == count
