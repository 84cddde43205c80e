"""Memory and time of sets larger than memory.

    python benchmarks/large_sets.py [--images 500 3000] [--out benchmarks/results/large-sets.json]

Prints the tables of docs/scale.md. For each number of images JPEG files of 224x224 pixels are generated in class folders, with
the spectrum of photographs. Each line is a process of its own, with the processes that it starts:

decode: a loop that decodes each file with Pillow. decode, encode: and writes it as PNG, to memory.
decode, forward: a loop that decodes each file with Pillow and takes it through a tiny network. predict: the same by notbugs.
decode, train: a loop with forward pass, backward pass and step. fit: the same by notbugs, one epoch.
decode, split: a loop with an epoch of adversarial training and one of standard training, one step each, and with each network a
set of images moved by one gradient step of the distance between features, as PNG. split: what `notbugs split` does, with one
epoch and one step in place of its 3 and 40.
again: the same command once more, when all is done: how long it takes to find that out.

peak: the most memory of all these processes together, shared pages counted once. anonymous: the same without pages of files,
which the system takes back when it needs memory. said left: what the terminal showed after a minute; was left: what it took from
then on.
"""

import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from harness import ResultsFile, Row, TimeLimit, argument_parser, measure, recorded_arguments  # the file beside this one

SIDE, CLASSES, TEST, TEXTURE = 224, 4, 40, 2048
KIB = 1024
PREPARE = """
import resource, sys, torch
from pathlib import Path
torch.set_num_threads(1)
folder, out = sys.argv[1:3]
from notbugs import models
def network():
    return models.build("small", shape=(3, 224, 224), classes=4, width=2)
"""
BATCHES = """
import numpy as np
from PIL import Image
files = sorted(Path(folder, "train").rglob("*.jpg"))
files = [files[i] for i in np.random.default_rng(0).permutation(len(files))]
def batches(size):
    for start in range(0, len(files), size):
        part = files[start : start + size]
        pixels = np.stack([np.asarray(Image.open(file)) for file in part])
        labels = torch.tensor([int(file.parent.name) for file in part])
        yield torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div(255), labels
"""
LOAD = """
import notbugs.train as train
from notbugs import data, predict
images = data.load(folder).train
"""
PROGRAMS = {
    "decode": BATCHES
    + """
for file in files:
    np.asarray(Image.open(file))
""",
    "decode, encode": BATCHES
    + """
import io
for file in files:
    Image.fromarray(np.asarray(Image.open(file))).save(io.BytesIO(), "PNG", compress_level=1)
""",
    "decode, forward": BATCHES
    + """
model = network().eval()
with torch.no_grad():
    for images, labels in batches(26):
        model(images)
""",
    "predict": LOAD + "predict.predict(network(), images)\n",
    "decode, train": BATCHES
    + """
model = network().train()
optimizer = torch.optim.AdamW(model.parameters())
for images, labels in batches(64):
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(model(images), labels).backward()
    optimizer.step()
""",
    "fit": LOAD + "train.fit(network(), images, epochs=1, batch_size=64)\n",
    "decode, split": BATCHES
    + """
import io
from torch.nn.functional import cross_entropy

def epoch(attacked):
    model = network().train()
    optimizer = torch.optim.AdamW(model.parameters())
    for images, labels in batches(64):
        if attacked:
            images.requires_grad_()
            (gradient,) = torch.autograd.grad(cross_entropy(model(images), labels), images)
            images = (images.detach() + 0.01 * gradient.sign()).clamp(0, 1)
        optimizer.zero_grad()
        cross_entropy(model(images), labels).backward()
        optimizer.step()
    return model.eval().requires_grad_(False)

def inverted(model, out):
    others = batches(26)
    next(others)
    for images, _ in batches(26):
        with torch.no_grad():
            wanted = model.features(images)
        start = next(others, (images,))[0][: len(images)].requires_grad_()
        (gradient,) = torch.autograd.grad((model.features(start) - wanted[: len(start)]).square().sum(), start)
        stored = ((start.detach() - 0.01 * gradient.sign()).clamp(0, 1) * 255).round()
        with torch.no_grad():
            model.features(stored / 255)
        for pixels in stored.byte().permute(0, 2, 3, 1).numpy():
            Image.fromarray(pixels).save(out, "PNG", compress_level=1)

for attacked in (True, False):
    with open(f"{out}.png", "wb") as stream:
        inverted(epoch(attacked), stream)
""",
    "split": """
from notbugs.cli.study_progress import study_progress
from notbugs.study import pipeline
from notbugs.study.config import StudyConfig
config = StudyConfig(
    folder, network="small", width=2, epochs=1, epsilon=3.0, adversarial_steps=1, invert_steps=1, flip=False, write="parquet"
)
if __name__ == "__main__":
    with study_progress() as shown:
        pipeline.run(
            config, out, only=("dataset-robust", "dataset-nonrobust"), workers=2,
            report_progress=shown.on_progress, on_plan=shown.on_plan, on_stage=shown.on_stage,
        )
""",
}
PROGRAMS["again"] = PROGRAMS["split"]
LOOPS = {"predict": "decode, forward", "fit": "decode, train", "split": "decode, split"}
UNITS = {"second": 1, "minute": 60, "hour": 3600}


class Measured(NamedTuple):
    """Of a program and all processes that it started."""

    seconds: float
    cpu_seconds: float
    peak_mib: float
    anonymous_mib: float
    said: list[tuple[float, str]]


def parser() -> ArgumentParser:
    """The arguments."""
    found = argument_parser(__doc__)
    found.add_argument("--images", type=int, nargs="+", default=[500, 3000], help="training images of each set")
    found.add_argument("--methods", nargs="+", choices=PROGRAMS, default=list(PROGRAMS))
    return found


def main() -> None:
    """Measure each number of images."""
    options = parser().parse_args()
    results = ResultsFile(options.out, packages=("pillow", "pyarrow"))
    rows = (row for count in options.images for row in _rows(count, options.methods))
    key = ("part", "method", "images")
    measure(results, "large-sets", rows, recorded_arguments(options), key=key, limit=TimeLimit(options.minutes))


def _rows(count: int, methods: list[str]) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as place:
        write_jpegs(Path(place) / "images", count)
        found: dict[str, Measured] = {}
        for method in methods:
            measured = found[method] = run(PREPARE + PROGRAMS[method], f"{place}/images", f"{place}/run")
            row: Row = {"method": method, "images": count, "seconds": measured.seconds, "cpu_seconds": measured.cpu_seconds}
            row |= {"peak_mib": measured.peak_mib, "anonymous_mib": measured.anonymous_mib}
            if loop := found.get(LOOPS.get(method, "")):
                row["cpu_time_ratio"] = measured.cpu_seconds / loop.cpu_seconds
            yield row | _left(measured)


def write_jpegs(folder: Path, count: int) -> None:
    """Crops of textures whose amplitude falls with the frequency, as in photographs; of each class its own texture."""
    import numpy as np
    from PIL import Image

    generator = np.random.default_rng(0)
    waves = np.hypot(np.fft.fftfreq(TEXTURE)[:, None], np.fft.rfftfreq(TEXTURE)[None])
    waves[0, 0] = 1
    textures = []
    for _ in range(CLASSES):
        noise = np.fft.irfft2(np.fft.rfft2(generator.standard_normal((3, TEXTURE, TEXTURE))) / waves, (TEXTURE, TEXTURE))
        textures.append((128 + 48 * noise / noise.std()).clip(0, 255).astype(np.uint8).transpose(1, 2, 0))
    for number in range(count + TEST):
        place = folder / ("train" if number < count else "test") / str(number % CLASSES)
        place.mkdir(parents=True, exist_ok=True)
        top, left = generator.integers(0, TEXTURE - SIDE, 2)
        image = textures[number % CLASSES][top : top + SIDE, left : left + SIDE]
        Image.fromarray(image).save(place / f"{number:06d}.jpg", quality=90)


# ---- a process and all that it starts ----------------------------------------------------------------------------------------


def run(code: str, *arguments: str) -> Measured:
    """Run a program and look at its memory, and that of its processes, five times a second."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    before, began = os.times(), time.perf_counter()
    script = Path(arguments[-1]).parent / "program.py"
    script.write_text(code)
    process = subprocess.Popen([sys.executable, str(script), *arguments], env=environment, stderr=subprocess.PIPE, text=True)
    said: list[tuple[float, str]] = []

    def listen() -> None:
        assert process.stderr is not None
        said.extend((time.perf_counter() - began, line.rstrip()) for line in process.stderr)

    listener = threading.Thread(target=listen)
    listener.start()
    peak = anonymous = 0.0
    worked: dict[int, float] = {}  # workers are children of a server of processes: nobody here waits for them
    while process.poll() is None:
        family = _family(process.pid)
        held = [_memory(number) for number in family]
        worked |= {number: seconds for number in family if (seconds := _cpu_seconds(number))}
        peak, anonymous = max(peak, sum(all for all, _ in held)), max(anonymous, sum(own for _, own in held))
        time.sleep(0.2)
    listener.join()
    if process.returncode:
        raise SystemExit("\n".join(line for _, line in said))
    after = os.times()
    waited_for = after.children_user + after.children_system - before.children_user - before.children_system
    return Measured(time.perf_counter() - began, max(waited_for, sum(worked.values())), peak, anonymous, said)


def _family(first: int) -> list[int]:
    """A process and all that descend from it."""
    parents = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            parents[int(pid)] = int(Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has ended
            continue
    found = {first}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return list(found)


def _memory(number: int) -> tuple[float, float]:
    """MiB of a process, and those of them that are no pages of files. What several processes share is divided among them."""
    try:
        text = Path(f"/proc/{number}/smaps_rollup").read_text()
    except OSError:  # it has ended
        return 0.0, 0.0
    found = {name: int(value) / KIB for name, value in re.findall(r"^(Pss|Pss_Anon):\s+(\d+) kB", text, re.MULTILINE)}
    return found.get("Pss", 0.0), found.get("Pss_Anon", 0.0)


def _cpu_seconds(number: int) -> float:
    """What a process has worked so far; 0 if it has ended."""
    try:
        fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _left(measured: Measured) -> Row:
    """What was said of the time left after a minute, and what was left."""
    for when, line in measured.said:
        if found := re.search(r"(?:about )?(\d+) (second|minute|hour)s? left", line):
            return {"said_left_seconds": int(found[1]) * UNITS[found[2]], "was_left_seconds": measured.seconds - when}
    return {}


if __name__ == "__main__":
    main()
