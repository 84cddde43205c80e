"""Figure 3 of the paper with more networks: do those that learn more from D_det also misclassify more transferred examples?

    python benchmarks/transfer_networks.py runs/cifar-full --out benchmarks/results/transfer-networks.json

RUN is a finished study with all controls (`--full`). Networks of seven families, of two widths each, are trained twice for each
seed of the study: on its D_det (set `next-labels`), which gives the test accuracy, and on the original images, which gives the
transfer rate of the standard model's adversarial examples. The family of the standard model is one of the seven.

Stopped at any moment, the same command resumes with the rows that are missing; those of the usual widths are measured first.

With --remake FOLDER, D_det and the adversarial examples are made again from RUN's standard models and kept in FOLDER: for a run
whose data sets are not there any more. On another device or version it is not the same to the last bit.
"""

import argparse
import json
import multiprocessing
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness import ResultsFile, Row, argument_parser, measure, recorded_arguments, resolve_device  # the file beside this one

if TYPE_CHECKING:
    from notbugs.data import Dataset
    from notbugs.models import Model
    from notbugs.study.config import ResolvedConfig

PART = "transfer-networks"
SOURCE_FAMILY = "resnet9"  # of the standard model, whose adversarial examples are transferred
SOURCE, ON_D_DET, ON_ORIGINAL = "standard", "trained-on-next-labels", "reinit-1"  # names in the catalog
D_DET = "next-labels"
KEY = ("network", "width", "seed")  # of a row
USUAL_WIDTHS = {"resnet9": 16, "small": 16, "vgg": 16, "resnet": 8, "mixer": 64, "inception": 16, "densenet": 16}
NETWORKS = tuple((family, factor * width) for factor in (1, 2) for family, width in USUAL_WIDTHS.items())


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    found = argument_parser(__doc__, device="auto")
    found.add_argument("run", type=Path, metavar="RUN", help="a finished study with all controls")
    found.add_argument("--workers", type=int, default=1, help="processes on the same device")
    found.add_argument("--remake", type=Path, metavar="FOLDER", help="make RUN's D_det and adversarial examples again, in FOLDER")
    found.add_argument("--beside", type=Path, metavar="FILE", help="results of another machine: its rows are not measured again")
    return found


def main() -> None:
    """Measure what is missing."""
    options = parser().parse_args()
    options.device = resolve_device(options.device)
    results = ResultsFile(options.out, device=options.device)
    measure(results, PART, _measured(options, results), recorded_arguments(options))


def _measured(options: argparse.Namespace, results: ResultsFile) -> Iterator[Row]:
    """One row for each network and seed, as they are finished."""
    from notbugs.runs.folder import RunFolder
    from notbugs.study import config as study_config
    from notbugs.study.resolve import resolve

    asked = study_config.config_of_run(RunFolder.read(options.run))
    config = resolve(replace(asked, device=options.device), study_config.load(asked))
    if config.network != SOURCE_FAMILY:
        raise SystemExit(
            f"{options.run}: must be a study of {SOURCE_FAMILY}, the family that the tables also leave out, got {config.network}"
        )
    todo = missing(options, results, range(config.seed, config.seed + config.seeds))
    if options.remake:
        check_remade(options)
        for seed in sorted({seed for *_, seed in todo}):
            _remake(config, options, seed)
    with ProcessPoolExecutor(options.workers, multiprocessing.get_context("spawn")) as pool:
        for future in as_completed([pool.submit(measured, config, options, *key) for key in todo]):
            yield future.result()


def missing(options: argparse.Namespace, results: ResultsFile, seeds: Iterable[int]) -> list[tuple[str, int, int]]:
    """Network, width and seed of the rows that neither file has. Exit if one of them has figures of another run."""
    have = [results]
    if options.beside:
        if not options.beside.exists():
            raise SystemExit(f"--beside {options.beside}: must be a results file of this benchmark, there is none")
        have.append(ResultsFile(options.beside, device=options.device))
    for file in have:
        measured_on = file.parts.get(PART, {}).get("arguments", {}).get("run")
        if file.rows and measured_on != str(options.run):
            raise SystemExit(f"{file.path}: has figures of {measured_on}; give another file for {options.run}")
    keys = [(network, width, seed) for network, width in NETWORKS for seed in seeds]
    return [key for key in keys if not any(file.has(**dict(zip(KEY, key, strict=True))) for file in have)]


def check_remade(options: argparse.Namespace) -> None:
    """Exit if the folder is of another run: it keeps the fingerprint of the data, and the arguments."""
    from notbugs.runs.folder import RunFolder

    kept, metadata = options.remake / "run.txt", RunFolder.read(options.run).metadata
    run = f"{metadata['fingerprint']} {json.dumps(metadata['arguments'], sort_keys=True)}"
    if kept.exists() and kept.read_text() != run:
        raise SystemExit(f"--remake {options.remake}: is of another run than {options.run}; give another folder")
    options.remake.mkdir(parents=True, exist_ok=True)
    kept.write_text(run)


def _remake(config: "ResolvedConfig", options: argparse.Namespace, seed: int) -> None:
    """Make D_det and the adversarial examples of one seed, unless they are there."""
    import torch

    from notbugs.runs.attempts import Attempt
    from notbugs.runs.scheduler import ignore_progress
    from notbugs.study import datasets, store, transferability
    from notbugs.study.catalog.datasets import DATASETS

    torch.set_num_threads(options.threads)
    attempt = Attempt(options.remake, ignore_progress, options.remake)
    if not store.examples_path(config, options.remake, seed, SOURCE).exists():
        (options.remake / "examples").mkdir(parents=True, exist_ok=True)
        transferability.make_examples(config, options.run, seed, attempt, source=SOURCE)
    if not store.dataset_path(config, options.remake, seed, D_DET).exists():
        (made,) = datasets.build_dataset(config, options.run, seed, attempt, spec=DATASETS[D_DET])
        print(f"D_det of seed {seed} made again: target reached {made.target_reached:.1%}", flush=True)


def measured(config: "ResolvedConfig", options: argparse.Namespace, network: str, width: int, seed: int) -> Row:
    """The row of one network: its accuracy after training on D_det, and the transfer rate to it."""
    import torch

    from notbugs import metrics
    from notbugs.allocator import keep_freed_memory
    from notbugs.metrics import transfer
    from notbugs.runs.scheduler import ignore_progress
    from notbugs.study import classifiers, store, transferability
    from notbugs.study.catalog.models import MODELS
    from notbugs.study.config import load

    torch.set_num_threads(options.threads)
    keep_freed_memory()
    config, splits, folder = replace(config, network=network, width=width), load(config, seed), options.remake or options.run

    def trained(name: str, dataset: "Dataset") -> "Model":
        spec = replace(MODELS[name], seed_key=f"{MODELS[name].seed_key}-{network}-{width}")
        return classifiers.train_classifier(config, dataset, spec, seed=seed, report_progress=ignore_progress).model

    on_d_det = trained(ON_D_DET, store.load_dataset(config, folder, seed, D_DET))
    accuracy = metrics.clean_accuracy(on_d_det, splits.test, device=options.device)
    examples = transferability.load_examples(config, folder, seed, SOURCE)
    target = trained(ON_ORIGINAL, splits.train)
    untargeted, *_ = transfer.transfer_rates(examples, transferability.test_images(config, seed), target, device=options.device)
    return {
        "network": network,
        "width": width,
        "seed": seed,
        "accuracy": accuracy.accuracy,
        "ci_low": accuracy.ci_low,
        "ci_high": accuracy.ci_high,
        "clean_accuracy": untargeted.clean_accuracy,
        "n": untargeted.n,
        "transfer_rate": untargeted.transfer_rate,
    }


if __name__ == "__main__":
    main()
