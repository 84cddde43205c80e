"""Labelled images: read from and written to the forms in which people keep them.

In reading order: names (of files and classes), decode (one file to pixels), dataset (the type; `sweep`), find (which files,
which labels), reading (`read`), writing (`write`, `read_split`), photographs (pictures of another domain).
"""

from notbugs.data.dataset import Dataset, Images, Lazy, from_8bit, out_of_memory, sweep, to_8bit
from notbugs.data.photographs import photographs
from notbugs.data.reading import Splits, read
from notbugs.data.writing import read_arrays, read_split, refuse_used, save_picture, write, write_arrays, write_table

__all__ = [
    "Dataset", "Images", "Lazy", "Splits", "from_8bit", "out_of_memory", "photographs", "read", "read_arrays", "read_split",
    "refuse_used", "save_picture", "sweep", "to_8bit", "write", "write_arrays", "write_table",
]  # fmt: skip
