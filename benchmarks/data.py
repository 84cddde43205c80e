"""How fast image folders are read into memory, and how much it takes: notbugs, torchvision's ImageFolder, Hugging Face datasets.

    python benchmarks/data.py [--rounds 5] [--out benchmarks/results/data.json]

Two data sets, made from crops of the two photographs that scikit-learn contains: 30,000 PNG files of 32x32 pixels, and 3,000 JPEG
files of 500x400 pixels, resized to 64x64. The result is uint8 tensors of all images, the same for each tool, which is checked.
Each tool reads in a process of its own, in turn; imports are not timed. The files are in the system's cache. Where torchvision
cannot be imported, its work is restated: list, open with Pillow, convert, resize, crop, in a DataLoader with as many workers.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import ResultsFile, Row, TimeLimit, argument_parser, measure, recorded_arguments  # the file beside this one

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

TOOLS = ("notbugs", "torchvision", "datasets")
PARTS = ("small-files", "photographs")
CLASSES, BATCH = 10, 256
RESIZE = 64  # of photographs


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    found = argument_parser(__doc__, parts=PARTS)
    found.add_argument("--rounds", type=int, default=5)
    found.add_argument("--workers", type=int, default=os.cpu_count(), help="processes of a DataLoader (default: one per core)")
    found.add_argument("--files", type=int, default=30_000, help="small files")
    found.add_argument("--photographs", type=int, default=3_000)
    found.add_argument("--child", nargs=3, metavar=("TOOL", "FOLDER", "SIDE"), help=argparse.SUPPRESS)
    return found


def main() -> None:
    """Make the files and time each tool."""
    options = parser().parse_args()
    if options.child:
        tool, folder, side = options.child
        print(json.dumps(_child(tool, Path(folder), int(side), options.workers, options.threads)))
        return
    results, limit = ResultsFile(options.out, packages=("pillow", "torchvision", "datasets")), TimeLimit(options.minutes)
    arguments = {name: value for name, value in recorded_arguments(options).items() if name != "child"}
    for part in options.parts:
        with tempfile.TemporaryDirectory() as folder:
            count = options.files if part == "small-files" else options.photographs
            side = 0 if part == "small-files" else RESIZE
            _make(part, Path(folder), count)
            command = [sys.executable, __file__, "--workers", str(options.workers), "--threads", str(options.threads)]
            calls = {tool: [*command, "--child", tool, folder, str(side)] for tool in TOOLS}
            measure(results, part, _rows(calls, count, options.rounds), arguments, key=("part", "tool"), limit=limit)


def _make(part: str, folder: Path, count: int) -> None:
    """Image files in class folders."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_sample_images

    photos = [Image.fromarray(photo) for photo in load_sample_images().images]
    for label in range(CLASSES):
        (folder / "train" / f"class{label}").mkdir(parents=True)
    generator = np.random.default_rng(0)
    for number in range(count):
        photo = photos[number % 2]
        width, height = (64, 64) if part == "small-files" else (420, 336)
        left, top = (int(generator.integers(room + 1)) for room in (photo.width - width, photo.height - height))
        size = (32, 32) if part == "small-files" else (500, 400)
        image = photo.resize(size, Image.Resampling.BICUBIC, (left, top, left + width, top + height))
        name = folder / "train" / f"class{number % CLASSES}" / f"{number:05d}"
        if part == "small-files":
            image.save(name.with_suffix(".png"))
        else:
            image.save(name.with_suffix(".jpg"), quality=90)


def _rows(calls: dict[str, list[str]], count: int, rounds: int) -> Iterator[Row]:
    found: list[dict[str, Row]] = []
    for number in range(rounds):  # each comes first in every third round
        order = TOOLS[number % 3 :] + TOOLS[: number % 3]
        done = {tool: subprocess.run(calls[tool], stdout=subprocess.PIPE, check=True) for tool in order}
        found.append({tool: json.loads(run.stdout) for tool, run in done.items()})
        print(
            {
                tool: {name: round(value, 2) for name, value in row.items() if name.endswith("seconds")}
                for tool, row in found[-1].items()
            }
        )
        if len({row["checksum"] for row in found[-1].values()}) > 1:
            raise SystemExit("the tools read different pixels")
    for tool in TOOLS:
        own = [each[tool] for each in found]
        ratios = [each[tool]["seconds"] / each["notbugs"]["seconds"] for each in found]
        yield {
            "tool": tool,
            "method": own[0]["method"],
            "n": count,
            "rounds": rounds,
            **{name: statistics.median(row[name] for row in own) for name in ("seconds", "cpu_seconds", "peak_mib")},
            "worker_peak_mib": max(row["worker_peak_mib"] for row in own),
            "time_ratio": statistics.median(ratios),
            "least_time_ratio": min(ratios),
            "largest_time_ratio": max(ratios),
            "cpu_time_ratio": statistics.median(each[tool]["cpu_seconds"] / each["notbugs"]["cpu_seconds"] for each in found),
        }


# ---- one tool, in a process of its own -----------------------------------------------------------------------------------------


def _child(tool: str, folder: Path, side: int, workers: int, threads: int) -> Row:
    """Read all images once: seconds, memory, and a sum that depends on all pixels."""
    import resource
    import time

    import torch

    torch.set_num_threads(threads)
    method, read = {"notbugs": _notbugs, "torchvision": _torchvision, "datasets": _datasets}[tool](folder, side, workers)
    began, times = time.perf_counter(), os.times()
    parts = read()
    seconds, now = time.perf_counter() - began, os.times()
    peak, workers_peak = _peak_mib(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    per_image = torch.cat([images.flatten(1).sum(1, dtype=torch.int64) for images in parts])
    return {
        "method": method,
        "seconds": seconds,
        "cpu_seconds": sum(now[:4]) - sum(times[:4]),
        "peak_mib": peak,
        "worker_peak_mib": workers_peak,
        "checksum": int((per_image.sort().values * torch.arange(1, len(per_image) + 1)).sum()),
    }


def _peak_mib() -> float:
    """Most memory that this process held. Not by getrusage, which counts that of the process that started it as well."""
    return int(re.findall(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())[0]) / 1024


Read = tuple[str, "Callable[[], list[Tensor]]"]  # how, and what reads all images


def _notbugs(folder: Path, side: int, workers: int) -> Read:
    from notbugs import data

    def read() -> "list[Tensor]":
        splits = data.load(folder / "train", resize=side or None)
        return [splits.train.images[:], splits.test.images[:]]

    return "data.load", read


def _torchvision(folder: Path, side: int, workers: int) -> Read:
    try:
        from torchvision.datasets import ImageFolder
    except (ImportError, RuntimeError):  # its build does not fit torch
        return "restated", lambda: [_batches(_Files(folder / "train", side), workers)]
    return "ImageFolder", lambda: [_batches(ImageFolder(str(folder / "train"), transform=_Transform(side)), workers)]


def _datasets(folder: Path, side: int, workers: int) -> Read:
    os.environ["HF_HUB_OFFLINE"] = "1"
    import datasets

    datasets.disable_progress_bars()
    transform = _Transform(side)

    def tensors(rows: dict[str, Any]) -> dict[str, Any]:
        return {"image": [transform(image.convert("RGB")) for image in rows["image"]], "label": rows["label"]}

    def read() -> "list[Tensor]":
        with tempfile.TemporaryDirectory() as cache:
            whole = datasets.load_dataset("imagefolder", data_dir=str(folder), split="train", cache_dir=cache)
            return [_batches(whole.with_transform(tensors), workers)]

    return "imagefolder", read


def _batches(items: Any, workers: int) -> "Tensor":
    """All images of a DataLoader in one tensor."""
    import torch
    from torch.utils.data import DataLoader

    images, done = torch.empty(0), 0
    for batch in DataLoader(items, batch_size=BATCH, num_workers=workers):
        some = batch["image"] if isinstance(batch, dict) else batch[0]
        if not done:
            images = torch.empty((len(items), *some.shape[1:]), dtype=torch.uint8)
        images[done : done + len(some)] = some
        done += len(some)
    return images


class _Transform:
    """Resize(side, bicubic), CenterCrop(side) and PILToTensor of torchvision, with Pillow alone."""

    def __init__(self, side: int) -> None:
        self.side = side

    def __call__(self, image: "Image") -> "Tensor":
        import numpy as np
        import torch
        from PIL import Image

        if self.side:
            least = min(image.size)
            width, height = (self.side * size // least for size in image.size)
            image = image.resize((width, height), Image.Resampling.BICUBIC)
            left, top = round((width - self.side) / 2), round((height - self.side) / 2)
            image = image.crop((left, top, left + self.side, top + self.side))
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


class _Files:
    """The work of torchvision's ImageFolder."""

    def __init__(self, root: Path, side: int) -> None:
        classes = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
        self.transform = _Transform(side)
        self.samples = [
            (os.path.join(folder, name), label)
            for label, each in enumerate(classes)
            for folder, _, names in sorted(os.walk(os.path.join(root, each), followlinks=True))
            for name in sorted(names)
            if name.lower().endswith((".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"))
        ]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> "tuple[Tensor, int]":
        from PIL import Image

        path, label = self.samples[index]
        with open(path, "rb") as stream:
            image = Image.open(stream).convert("RGB")
        return self.transform(image), label


if __name__ == "__main__":
    main()
