"""A full study in color with all controls, as large as one of 8,000 images, without training anything: rows and noise."""

from pathlib import Path

import numpy as np
from PIL import Image
from report.conftest import ACCURACIES, Counted, accuracy_row, full_study, quick_rows

from notbugs.report.results import StudyResults
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.analyses import FourierRow
from notbugs.runs.tables.row import Row
from notbugs.runs.tables.study import AdversarialPictureRow, PictureRow
from notbugs.study.catalog.datasets import CONTROL_DATASETS, QUICK, SETS
from notbugs.study.catalog.models import ANALYZED_MODELS

SIDE, CLASSES = 32, ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
MAPPED = (*ANALYZED_MODELS, "trained-on-random-labels", "trained-on-next-labels", "trained-on-random-labels-shuffled")
MODELS = [*dict.fromkeys(("adversarial", "trained-on-robust", "trained-on-nonrobust", *ACCURACIES))]


def color_study(folder: Path) -> StudyResults:
    """A matrix of 20 data sets, seven maps of frequencies, and 120 pictures of noise, which no format makes smaller."""
    full_study(folder, 1)
    with RunFolder.open(folder, {"kind": "study", "dataset": "digits"}) as run:
        data = {**run.metadata["data"], "classes": [*CLASSES], "shape": [3, SIDE, SIDE]}
        run.update_metadata(data=data)
        shares = dict.fromkeys(ANALYZED_MODELS, (0.7, 0.4, 0.2))
        run.record_stage("quick", 1.0, quick_rows(shares, 0))
        run.record_stage("matrix", 1.0, _matrix())
        run.record_stage("fourier", 1.0, _fourier())
        run.record_stage("pictures", 1.0, _pictures(folder))
    return StudyResults.read(folder)


def _matrix() -> list[Row]:
    """Nearly all images are correct: no cell can be wider."""
    names = [name for name in SETS if name in ("test-next", "original", *QUICK, *CONTROL_DATASETS)]
    all_correct = Counted(1.0, 0)
    return [
        accuracy_row(model, all_correct.correct, all_correct.n, all_correct.interval, 0, set=name, epsilon=epsilon, attack=attack)
        for model in MODELS
        for name in names
        for epsilon, attack in ((0.0, "none"), (0.75, "PGD-20"))
    ]


def _fourier() -> list[Row]:
    rates = np.random.default_rng(0).integers(40, 200, (len(MAPPED), SIDE, SIDE // 2 + 1)) / 200
    return [
        FourierRow(model=model, seed=0, cycles_down=down - SIDE // 2 + 1, cycles_across=across, amplitude=0.1, n=200,
                   error_rate=float(rates[place, down, across]))
        for place, model in enumerate(MAPPED)
        for down in range(SIDE)
        for across in range(SIDE // 2 + 1)
    ]  # fmt: skip


def _pictures(folder: Path) -> list[Row]:
    (folder / "pictures").mkdir()
    random, files = np.random.default_rng(1), [f"airplane/{place:05}.png" for place in range(12)]

    def noise() -> str:
        name = f"pictures/{random.integers(2**60)}.png"
        Image.fromarray(random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(folder / name)
        return name

    columns = ("original", "adversarial", "perturbation", *QUICK)[:8]
    labels = {"standard": "automobile", "adversarial": "airplane"}
    rows: list[Row] = [
        PictureRow(file=file, column=column, picture=noise(), label="automobile", **labels)
        for file in files
        for column in columns
    ]
    rows += [
        AdversarialPictureRow(
            file=file, label="airplane", model=model, predicted="automobile", confidence=0.5, clean_confidence=0.9, norm="l2",
            distance=0.1, amplification=60.0, clean_picture=noise(), picture=noise(), perturbation_picture=noise(),
        )
        for model in ("standard", "adversarial")
        for file in files[:4]
    ]  # fmt: skip
    return rows
