"""Labeled images: load, subset and export data sets."""

from notbugs.data.dataset import Dataset, Images, LazyImages, from_8bit, is_out_of_memory, map_batches, to_8bit
from notbugs.data.export import check_unused, export, load_arrays, load_part, save_arrays, save_image, write_table
from notbugs.data.load import Splits, load
from notbugs.data.photographs import photo_crops

__all__ = [
    "Dataset",
    "Images",
    "LazyImages",
    "Splits",
    "check_unused",
    "export",
    "from_8bit",
    "is_out_of_memory",
    "load",
    "load_arrays",
    "load_part",
    "map_batches",
    "photo_crops",
    "save_arrays",
    "save_image",
    "to_8bit",
    "write_table",
]
