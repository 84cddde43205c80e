"""The words by which readers know what a column, a field, an array, a file or a folder is about: one list for each meaning.

Where one reader takes fewer of them, or others, the list for it stands beside, with the reason.
"""

import re
from collections.abc import Collection, Iterable, Sequence

# ---- labels --------------------------------------------------------------------------------------------------------------------

# What is called so holds labels.
LABELS = ("label", "labels", "class", "category", "target", "cls", "y", "classid", "labelid", "classlabel")
# What classes are called in one field; in FER2013 it is emotion. These hold labels where nothing is called as above.
TOPICS = ("tag", "species", "breed", "dx", "diagnosis", "choice", "emotion")
LABEL_NAMES = ("labelname", "classname")  # the words for numbers, which hold labels where they stand alone
# In a table beside images any of these may hold them, and which one is not guessed: a class beside species is that of a taxonomy.
LABEL_COLUMNS = (*LABELS, *TOPICS, *LABEL_NAMES)
# In the .json of a shard y stands beside x, labels may be a list, and a tag or a species may be what else is known of the image,
# whose label KEY.txt has.
NOT_IN_SHARDS = ("y", "labels", *TOPICS, *LABEL_NAMES)
# How the name of a field ends whose numbers a list of class names beside the records names: image_labels, category_id. A longer
# word may stand before them, so that the short ones, as y, say nothing.
NUMBERED_LABELS = ("label", "labels", "class", "category", "target", "targets", "classid", "labelid", "categoryid")
# Of the columns of a Hugging Face set these go before all others. The first is that of CIFAR-100, which also has coarse_label.
FINE_LABEL, COARSE_LABEL = "fine_label", "coarse_label"
LABELS_FIRST = ("label", "labels", FINE_LABEL)
SEVERAL_LABELS = ("tags", "labels", "categories", "classes", "attributes")  # columns that may hold several
# A column of words beside a column of numbers: label_name beside label. Not those for all words above: tag_text may be any text.
NAME_COLUMN = re.compile(
    r"(label|labels|class|category|target|species|breed|y)(name|text|str|string|title|word|desc|description)s?"
)

# In the name of a .json beside numbered classes, which may be a list of their names: label_num_to_disease_map.json
LISTS_OF_NAMES = frozenset(("label", "labels", "class", "classes", "category", "categories", "map", "mapping", "names"))

# ---- files and images ----------------------------------------------------------------------------------------------------------

# A column of a table beside images whose cells may name them.
FILE_COLUMNS = (
    "filename", "file", "filepath", "path", "image", "imagepath", "imagename", "imageid", "img", "imgpath", "id", "name",
)  # fmt: skip
IMAGE_COLUMNS = ("image", "img")  # a column that holds encoded images
# Words of the names of arrays: train_images, y_test. An array holds the images themselves, and one called class, category or
# species may hold the names of classes, or other labels than the array beside it.
ARRAYS = {
    "images": ("images", "image", "imgs", "img", "x", "pixels", "inputs", "input", "data", "features"),
    "labels": ("labels", "label", "y", "targets", "target", "classid", "classids"),
    "names": ("names", "name", "filenames", "filename", "files", "ids"),
}

# ---- parts ---------------------------------------------------------------------------------------------------------------------

TRAIN, TEST, VALIDATION, UNLABELED = "train", "test", "validation", "unlabeled"
SPLITS = {
    TRAIN: ("train", "training", "trn", "trainval"),
    TEST: ("test", "testing", "tst", "eval", "evaluation", "holdout"),
    VALIDATION: ("val", "valid", "validation", "validate", "dev"),
    UNLABELED: ("unlabeled", "unlabelled", "unsupervised", "unsup"),
}
# In the names of arrays as well: Xtr, yte. Elsewhere two letters say nothing.
SHORT_SPLITS = {"tr": TRAIN, "te": TEST}
# In the names of idx files: t10k is MNIST's test part. No others, since what stands before them is the name of the set.
IDX_SPLITS = ("train", "t10k", "test", "dev", "val")
# Words that may stand beside these: training_set, seg_train, train_images, Final_Training, test-data
NEUTRAL = frozenset(
    (
        "set", "sets", "data", "dataset", "datasets", "image", "images", "img", "imgs", "picture", "pictures", "pic", "pics",
        "photo", "photos", "seg", "segment", "segmentation", "split", "splits", "part", "parts", "folder", "folders", "file",
        "files", "dir", "batch", "batches", "chunk", "chunks", "final", "official", "all", "sample", "samples", "examples",
        "label", "labels", "labeled", "jpegimages",
    )
)  # fmt: skip
FLAGS = {  # columns of 0 and 1: the part of each
    "isvalid": (TRAIN, VALIDATION), "isval": (TRAIN, VALIDATION), "istrain": (TEST, TRAIN), "istraining": (TEST, TRAIN),
    "istest": (TRAIN, TEST),
}  # fmt: skip
# A column that says the part of each image
SPLIT_COLUMNS = ("split", "set", "subset", "partition", "usage", "datasplit", "dataset", "phase", *FLAGS, "fold")
FOLDS = frozenset(("fold", "folds", "kfold", "cv"))  # with a number, in the names of folders
# In the name of a file that lists the parts
LISTS_OF_PARTS = frozenset(("split", "splits", "partition", "partitions", "fold", "folds"))
# Folders beside the images that are no classes
ANNOTATIONS = frozenset(
    (
        "annotation", "annotations", "label", "labels", "mask", "masks", "bbox", "bboxes", "boxes", "meta", "metadata", "lists",
        "trimaps", "ann", "anns",
    )
)  # fmt: skip


# ---- comparing names -----------------------------------------------------------------------------------------------------------


def plain_name(name: str) -> str:
    """A column's name without case, spaces and signs: Class_Id -> classid."""
    return re.sub(r"[\W_]", "", name.casefold())


def words_of(name: str) -> list[str]:
    """Words of a name in lower case: trainImages_2017 -> train, images."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return [word.casefold() for word in re.findall(r"[^\W\d_]+", spaced)]


def named_column(columns: Sequence[str], name: str | None) -> str | None:
    """The column of this name, or the only one whose name differs in case, blanks and signs alone; None if there is none.

    Examples
    --------
    >>> named_column(["Patient ID", "label"], "patient_id"), named_column(["d"], r"\\d+")
    ('Patient ID', None)
    """
    if name is None or name in columns or not re.fullmatch(r"[\w .-]+", name):
        return name if name in columns else None
    alike = [column for column in columns if plain_name(column) == plain_name(name)]
    return alike[0] if len(alike) == 1 else None


def called_labels(names: Iterable[str], but: Collection[str] = ()) -> list[str]:
    """The names that say labels; those of one field, and of words for numbers, only where there are no others.

    but: words of the lists that do not count.

    Examples
    --------
    >>> called_labels(["Class ID", "species"]), called_labels(["species", "name"]), called_labels(["x", "y"], NOT_IN_SHARDS)
    (['Class ID'], ['species'], [])
    """
    plain = {name: plain_name(name) for name in names}
    for words in (LABELS, TOPICS, LABEL_NAMES):
        if found := [name for name in plain if plain[name] in words and plain[name] not in but]:
            return found
    return []
