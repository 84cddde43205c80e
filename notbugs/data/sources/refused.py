"""What is not read: what it is, by its ending or by its first bytes, and the way out."""

import os
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from notbugs.data.names import IMAGE_SUFFIXES, SYSTEM, printable
from notbugs.decoding.foreign import BEGIN, foreign_content
from notbugs.errors import InputError

CONVERT = "read it with its own library and save an .npz: train_images, train_labels, …"
WITH_IMAGES = "pass the folder that also has the images, with --labels FILE"
PACKED = (".tar.bz2", ".tar.xz", ".tar.zst", ".7z", ".rar")
PICKLE = "is a Python pickle, which can run any code when it is read"
# Forms of whole data sets, or of what stands for them: these ways out also hold for a folder of such files
FORMS: Mapping[str, tuple[str, str]] = {
    ".mat": ("is a file of MATLAB", "scipy.io.loadmat reads it; save an .npz with train_images, train_labels, …"),
    **dict.fromkeys((".tfrecord", ".tfrecords", ".tfrec"), ("is a file of TensorFlow", CONVERT)),
    ".rec": ("is a file of MXNet", CONVERT),
    **dict.fromkeys((".lmdb", ".mdb"), ("is an LMDB database", CONVERT)),
    ".beton": ("is a file of FFCV", CONVERT),
    **dict.fromkeys((".pkl", ".pickle", ".joblib"), (PICKLE, CONVERT)),
    ".dvc": ("is a pointer of DVC, which stands for files that are not here", "get them with `dvc pull`"),
    ".dcm": ("is a medical image (DICOM), of which a window of values must be chosen", "save each image as a .png"),
    **dict.fromkeys((".nii", ".nii.gz"), ("is a medical volume (NIfTI)", "save each slice as a .png")),
    **dict.fromkeys((".mp4", ".avi", ".mov", ".mkv"), ("is a video", "save the frames as .png, one folder for each class")),
    **dict.fromkeys(PACKED, ("is an archive of a kind that is not read", "unpack it and pass the folder")),
}
REFUSED: Mapping[str, tuple[str, str]] = {
    **FORMS,
    ".arrow": ("is one file of a saved Hugging Face set", "pass the folder that it lies in"),
    ".json": ("is a table or a description, and no data set", WITH_IMAGES),
    **dict.fromkeys((".jsonl", ".ndjson", ".tsv", ".txt"), ("is a table, and no data set", WITH_IMAGES)),
    ".csv": ("is a table without columns of pixels", WITH_IMAGES),
    **dict.fromkeys((".gz", ".bz2", ".xz"), ("is packed", "unpack it and pass what it holds")),
    ".bin": ("is a file of unknown bytes", "of CIFAR's binary version pass the folder"),
    ".npy": ("is one array", "put x_train.npy, y_train.npy, … or X.npy, y.npy into one folder and pass the folder"),
    **dict.fromkeys(IMAGE_SUFFIXES, ("is one image", "pass the folder with all images")),
}
# The way out for a folder of such files, none of which is an image
IN_FOLDERS = {form: remedy for form, (_, remedy) in FORMS.items()} | {
    ".npy": "save each array as CLASS/file.png, or all of them as one .npz: train_images, train_labels, …",
    **dict.fromkeys((".zip", ".tar", ".tar.gz", ".tgz", *PACKED), "unpack them, and pass the folder"),
}
# What may hold images of a data set beside which it lies
NOT_UNPACKED = (".zip", ".tar", ".tar.gz", ".tgz", ".dvc", *PACKED)
MOST_FILES = 10_000  # looked at


def ending(name: str) -> str:
    """The ending of a file's name that says its form, in lower case.

    Examples
    --------
    >>> ending("train-000.TAR.gz"), ending("data.npz"), ending("x.tfrecord-00000-of-00002"), ending("README")
    ('.tar.gz', '.npz', '.tfrecord', '')
    """
    lower = re.sub(r"-\d+-of-\d+$", "", name.lower())
    double = next((known for known in (".tar.gz", ".nii.gz", *PACKED) if lower.endswith(known)), "")
    return double or os.path.splitext(lower)[1]


def what_is_there(folder: Path) -> tuple[str, str]:
    """What the files in a folder without images are, and the way out; "" if there are none, or no way out is known."""
    names = [
        (path, name)
        for path, folders, files in os.walk(folder)
        for name in (*sorted(files), *(entry for entry in folders if ending(entry) in FORMS))
        if not name.startswith(".") and name.casefold() not in SYSTEM
    ][:MOST_FILES]
    if not names:
        return "", ""
    for path, name in names[:20]:
        if found := foreign(Path(path, name)):
            return f"{printable(name)}, which {found[0]}", found[1]
    counts = Counter(ending(name) or "no ending" for _, name in names)
    seen = ", ".join(f"{count:,} {form}" for form, count in counts.most_common(3))
    remedy = next((IN_FOLDERS[form] for form, _ in counts.most_common() if form in IN_FOLDERS), "")
    return f"files {seen}", remedy


def foreign(path: Path) -> tuple[str, str] | None:
    """What a file is that its name does not say, a pointer or a web page, and the way out; None for others."""
    if not path.is_file():  # opening a pipe would wait forever
        return None
    try:
        with path.open("rb") as stream:
            return foreign_content(stream.read(BEGIN))
    except OSError:
        return None


def reject_foreign(path: Path) -> None:
    """Raises InputError for a file that only stands for another one, or is what a failed download leaves."""
    if found := foreign(path):
        raise InputError(printable(str(path)), found[0], remedy=found[1])
