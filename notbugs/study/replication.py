"""What the paper measured beyond a full study: the classifier trained on D_R, on robust versions of images.

`report.findings.replication` compares these figures with the paper's.
"""

from collections.abc import Callable
from pathlib import Path

from notbugs import construct, data, metrics
from notbugs.data import Dataset
from notbugs.runs.engine import Progress
from notbugs.runs.tables.replication import RobustVersionRow
from notbugs.study.catalog.datasets import DATASETS
from notbugs.study.catalog.models import trained_on
from notbugs.study.config import ResolvedConfig, load
from notbugs.study.datasets import count_progress
from notbugs.study.store import derive_seed, load_dataset, load_model

TRAINING_IMAGES = 2000  # of D_R
ROBUST_TEST = "robust-test"  # the robust version of the test images; also the key of its random seed


def robust_version_accuracy(config: ResolvedConfig, folder: Path, seed: int, report_progress: Progress) -> list[RobustVersionRow]:
    """Stage: the classifier trained on D_R, under attack, on D_R, on the robust version of the test images, and on these.

    References
    ----------
    Ilyas et al. 2019, table 8.
    """
    spec, test = DATASETS["robust"], load(config, seed).test
    inverted = count_progress(len(test), lambda _, share, words: report_progress("", 0.3 * share, words))
    robust_test = _invert(config, folder, seed, spec.source_model, test, inverted)
    report_progress("", 0.3, "robust version of the test images")
    robust = load_dataset(config, folder, seed, spec.name)
    robust = robust.select(data.evenly_spaced(TRAINING_IMAGES, len(robust)))
    parts = {spec.name: robust, ROBUST_TEST: robust_test, "test": test}
    name = trained_on(spec.name)
    model, rows = load_model(config, folder, seed, name), []
    for number, (part_name, part) in enumerate(parts.items()):
        accuracies = metrics.robust_accuracy(
            model,
            part,
            config.threat_models,
            device=config.device,
            progress=lambda share, done=number: report_progress("", 0.3 + 0.7 * ((done + share) / len(parts)), "attacked"),  # type: ignore[misc]
        )
        rows += [RobustVersionRow(model=name, set=part_name, seed=seed, **vars(accuracy)) for accuracy in accuracies]
        report_progress("", 0.3 + 0.7 * ((number + 1) / len(parts)), part_name)
    return rows


def _invert(
    config: ResolvedConfig, folder: Path, seed: int, model: str, dataset: Dataset, progress: Callable[[int], None]
) -> Dataset:
    """The features of a model, inverted for these images."""
    return construct.invert_features(
        load_model(config, folder, seed, model),
        dataset,
        start=config.invert_start,
        steps=config.invert_steps,
        seed=derive_seed(seed, ROBUST_TEST),
        bf16=config.bf16,
        compile=config.compile,
        device=config.device,
        progress=progress,
    ).dataset
