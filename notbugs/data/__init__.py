"""Labeled images: load, subset and export data sets."""

from notbugs.data.batches import is_out_of_memory, map_batches, map_to_images
from notbugs.data.card import Origin, empty_classes, license_of
from notbugs.data.dataset import Dataset
from notbugs.data.eight_bits import from_8bit, to_8bit
from notbugs.data.export import check_form, check_unused, export
from notbugs.data.exported import load_part
from notbugs.data.groups import grouped_folds
from notbugs.data.header_index import use_index
from notbugs.data.images import Images, LazyImages, Repeated
from notbugs.data.load import fingerprint, keep_index, load, load_dataset
from notbugs.data.loaded import Splits, keeping_loads
from notbugs.data.mask import read_mask
from notbugs.data.originals import Originals, origin_of, originals
from notbugs.data.photographs import photo_crops
from notbugs.data.shard_files import Rows, joined
from notbugs.data.shard_writers import made_as
from notbugs.data.sheets import load_sheet, save_sheet, sheet_columns, thumbnails
from notbugs.data.single_files import load_arrays, save_arrays, save_image
from notbugs.data.subset import balanced_subset, evenly_spaced, first_per_class, random_subset
from notbugs.data.summary import file_rows, left_out, summary
from notbugs.data_config import DataConfig

__all__ = [
    "DataConfig",
    "Dataset",
    "Images",
    "LazyImages",
    "Origin",
    "Originals",
    "Repeated",
    "Rows",
    "Splits",
    "balanced_subset",
    "check_form",
    "check_unused",
    "empty_classes",
    "evenly_spaced",
    "export",
    "file_rows",
    "fingerprint",
    "first_per_class",
    "from_8bit",
    "grouped_folds",
    "is_out_of_memory",
    "joined",
    "keep_index",
    "keeping_loads",
    "left_out",
    "license_of",
    "load",
    "load_arrays",
    "load_dataset",
    "load_part",
    "load_sheet",
    "made_as",
    "map_batches",
    "map_to_images",
    "origin_of",
    "originals",
    "photo_crops",
    "random_subset",
    "read_mask",
    "save_arrays",
    "save_image",
    "save_sheet",
    "sheet_columns",
    "summary",
    "thumbnails",
    "to_8bit",
    "use_index",
]
