"""How the limits of near duplicates were chosen: pairs that are found at several limits, and versions that are found again.

    python benchmarks/near_duplicates.py DATASET [--resize N [--resize-mode MODE]] [--limit N] [--scene REGEX]

scene: what the names of the frames of one scene share; then also the pairs of one scene.
"""

import argparse
import io
import re
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageEnhance

from notbugs import data
from notbugs.data import Dataset
from notbugs.datacheck import duplicates
from notbugs.datacheck.fingerprints import Fingerprints, fingerprints

LIMITS = (0.06, 0.08, 0.1, 0.12, 0.15, 0.2, 0.25)
VERSIONS = 500  # images of which versions are made


def _jpeg(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=60)
    return Image.open(file).convert(image.mode)


def _resized(image: Image.Image) -> Image.Image:
    small = image.resize((image.width * 3 // 5, image.height * 3 // 5), Image.Resampling.BILINEAR)
    return small.resize(image.size, Image.Resampling.BICUBIC)


MADE: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG, quality 60": _jpeg,
    "60 % of the size and back": _resized,
    "10 % brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.1),
    "20 % darker": lambda image: ImageEnhance.Brightness(image).enhance(0.8),
}


def version(part: Dataset, make: Callable[[Image.Image], Image.Image]) -> Dataset:
    """The images in another version."""
    images = [Image.fromarray(image.permute(1, 2, 0).numpy().squeeze()) for image in part.images[:]]
    made = [np.atleast_3d(np.asarray(make(image))) for image in images]
    return part.with_images(torch.from_numpy(np.stack(made)).permute(0, 3, 1, 2).contiguous())


def found_again(part: Dataset, prints: Fingerprints, make: Callable[[Image.Image], Image.Image]) -> list[float]:
    """Share of the images, of some contrast, whose version is found, at each limit."""
    other = fingerprints(version(part, make))
    bits = (prints.hashes[: len(part)] != other.hashes).sum(1)
    similarity = duplicates._correlation(prints.thumbnails[: len(part)], other.thumbnails)
    chosen = (prints.contrast[: len(part)] >= duplicates.MIN_CONTRAST) & (other.contrast >= duplicates.MIN_CONTRAST)
    near = (bits <= duplicates.MAX_BITS)[chosen]
    return [float((near & (2 * (1 - similarity[chosen]) <= limit**2)).mean()) for limit in LIMITS]


def main() -> None:
    """Print the tables of one data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--resize", type=int)
    parser.add_argument("--resize-mode", default="squash", help="of the figures in docs/lab-log.md: squash")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--scene")
    given = parser.parse_args()
    train = data.load_dataset(
        data.DataConfig(given.dataset, given.resize, given.limit, resize_mode=given.resize_mode if given.resize else "crop")
    ).train
    prints = fingerprints(train)
    first = duplicates.exact_groups(prints.digests)
    duplicates.MAX_DIFFERENCE.update(dict.fromkeys((1, 3), max(LIMITS)))
    pairs = duplicates.near_pairs(prints, first == np.arange(len(first)))
    near = [2 * (1 - pairs.similarity) <= limit**2 for limit in LIMITS]
    print(f"{given.dataset}: {len(train)} training images, {train.shape[2]}x{train.shape[1]}")
    print("limit".ljust(28), *(f"{limit:6g}" for limit in LIMITS))
    print("pairs".ljust(28), *(f"{chosen.sum():6}" for chosen in near))
    if given.scene:
        scenes = np.array([found[0] if (found := re.search(given.scene, name)) else name for name in train.names])
        same = scenes[pairs.first] == scenes[pairs.second]
        print("of them of one scene".ljust(28), *(f"{(chosen & same).sum():6}" for chosen in near))
    part = train.select(slice(0, VERSIONS))
    for name, make in MADE.items():
        print(f"found: {name}".ljust(28), *(f"{100 * share:5.1f}%" for share in found_again(part, prints, make)))


if __name__ == "__main__":
    main()
