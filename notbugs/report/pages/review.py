"""The page that shows a blinded sample of images to reviewers, one at a time, and saves their answers. Imports no torch."""

from pathlib import Path
from typing import TYPE_CHECKING

from notbugs.atomic import atomic_write_text
from notbugs.report import render
from notbugs.review.files import PAGE_FILE, REVIEWER_NAME, review_folder

if TYPE_CHECKING:
    from notbugs.review.sample import ReviewSample

MAX_SIDE = 352  # of an enlarged image on the screen, in pixels
MAX_SCALE = 24  # images are enlarged by a whole number


def write_page(folder: Path, sample: "ReviewSample") -> Path:
    """Write review/review.html into a study's folder; returns its path. It says nothing of the sets, and needs no network."""
    scale = max(1, min(MAX_SCALE, MAX_SIDE // max(sample.height, sample.width)))
    content = {
        "review": {
            "id": sample.id,
            "classes": list(sample.classes),
            "images": [{"id": image.id, "source": image.picture} for image in sample.images],
        },
        "width": scale * sample.width,
        "height": scale * sample.height,
        "name": REVIEWER_NAME,
    }
    path = review_folder(folder) / PAGE_FILE
    atomic_write_text(path, render.fill("review.html.jinja", content))
    return path
