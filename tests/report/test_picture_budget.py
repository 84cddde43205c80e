"""Pictures of a page within a budget: a report of photographs stays small enough to be sent."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from notbugs.report import picture_budget
from notbugs.report.picture_budget import reduce_pictures, reduce_to_page


def page(*pictures: Image.Image) -> str:
    sources = []
    for picture in pictures:
        file = io.BytesIO()
        picture.save(file, "PNG")
        sources.append(f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}")
    return "".join(f'<img src="{source}">' for source in sources)


def noise(side: int, channels: int = 3) -> Image.Image:
    shape = (side, side, 3) if channels == 3 else (side, side)
    return Image.fromarray(np.random.default_rng(side).integers(0, 256, shape, dtype=np.uint8))


def test_pictures_within_the_budget_stay_as_they_are() -> None:
    small = page(noise(16))
    assert reduce_pictures(small) == (small, "")


@pytest.mark.parametrize(("most", "kind"), [(90_000, "lossless WebP"), (15_000, "WebP of quality")])
def test_larger_ones_are_reduced_to_the_budget(most: int, kind: str) -> None:
    flat = Image.new("RGB", (400, 200), (200, 30, 90))
    reduced, how = reduce_pictures(page(noise(256), noise(64, 1), flat), most)
    assert kind in how and how.startswith("at most 128 pixels") and len(reduced) < most + 200
    sources = re.findall('data:image/webp;base64,([^"]+)', reduced)
    pictures = [Image.open(io.BytesIO(base64.b64decode(source))) for source in sources]
    assert [picture.size for picture in pictures] == [(128, 128), (64, 64), (128, 64)]
    assert max(abs(a - b) for a, b in zip(pictures[2].getpixel((60, 30)), (200, 30, 90), strict=True)) < 8  # type: ignore[arg-type]


@pytest.mark.parametrize(("rest", "kind"), [(100_000, ""), (500_000, "WebP of quality 90"), (650_000, "WebP of quality")])
def test_what_the_rest_of_the_page_leaves_is_for_pictures(rest: int, kind: str) -> None:
    """The rest has letters of two bytes: the limit is in bytes, as of a file."""
    pictures = page(*(noise(side) for side in range(100, 106)))  # 200 KB
    assert 190_000 < len(pictures) < 300_000
    reduced, how = reduce_to_page("é" * (rest // 2) + pictures)
    assert kind in how and bool(how) == bool(kind)
    most = picture_budget.PAGE if rest < picture_budget.PAGE - picture_budget.LEAST else rest + picture_budget.LEAST
    assert len(reduced.encode()) < most + 200


def test_what_cannot_be_decoded_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = f"data:image/png;base64,{base64.b64encode(bytes(300)).decode()}"
    assert reduce_pictures(damaged, 10).page == damaged
    monkeypatch.setattr(picture_budget, "MAX_PIXELS", 100)
    huge = page(noise(20))
    assert reduce_pictures(huge, 10).page == huge
