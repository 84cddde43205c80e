"""What a run keeps of its data set: a summary in run.json, and each file with its part, or the reason why it is left out."""

from collections import Counter

from notbugs.data.dataset import Dataset
from notbugs.data.loaded import Splits
from notbugs.runs.tables.data import DataFileRow


def summary(splits: Splits) -> dict[str, object]:
    """What run.json says of the data: see `runs.metadata.DataSummary`."""
    part = splits.train if len(splits.train) else splits.test
    return {
        "classes": list(part.classes),
        "train": len(splits.train),
        "test": len(splits.test),
        "shape": list(part.shape),
        "form": splits.form,
        "notes": list(splits.notes),
        "left_out": left_out(splits),
    }


def left_out(splits: Splits) -> dict[str, int]:
    """Number of files that are not used, by reason."""
    return dict(Counter(reason.split(" (")[0] for _, reason in splits.left_out))


def file_rows(splits: Splits) -> list[DataFileRow]:
    """Each image with its part, and each file that is left out with the reason, as tables/data_files.csv has them."""
    rows = [*_of_part(splits.train, "train"), *_of_part(splits.test, "test")]
    return rows + [DataFileRow(file=file, part="left out", label="", group="", reason=reason) for file, reason in splits.left_out]


def _of_part(dataset: Dataset, part: str) -> list[DataFileRow]:
    groups = dataset.groups or ("",) * len(dataset)
    return [
        DataFileRow(file=name, part=part, label=dataset.classes[label], group=group, reason="")
        for name, label, group in zip(dataset.names, dataset.labels.tolist(), groups, strict=True)
    ]
