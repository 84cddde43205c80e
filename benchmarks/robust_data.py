"""Robustness from data alone: ordinary training on robust versions of a data set that are made in different ways.

    python benchmarks/robust_data.py cifar.npz --files 8000 --validation 5000 --out benchmarks/results/robust-data-validation.json
    python benchmarks/robust_data.py cifar.npz --files 8000 --seeds 10 11 12 --autoattack 1000 --recipes original adversarial ...
        --out benchmarks/results/robust-data-test.json

The recipes stand in robust_data_recipes.py. Settings are chosen on validation images: with --validation N, the last N training
images, on which nothing is trained. Without it the test images count. No adversarial example is made in the second training.
Stopped at any moment, by Ctrl-C or by --minutes, the same command resumes: finished rows and models in --cache are kept.
`python benchmarks/markdown_tables.py FILE.json` prints the tables.
"""

import argparse
import json
import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed, wait
from pathlib import Path
from typing import Any

from harness import ResultsFile, Row, argument_parser, measure, recorded_arguments, resolve_device  # the file beside this one


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    found = argument_parser(__doc__, device="auto")
    found.add_argument("dataset", metavar="DATASET", help="an .npz that holds training and test images")
    found.add_argument("--files", type=int, default=8000, help="training images: the first")
    found.add_argument(
        "--validation", type=int, default=0, help="evaluate on the last training images, so many; 0: on the test images"
    )
    found.add_argument("--images", type=int, default=10**9, help="images of the evaluation, at most")
    found.add_argument("--recipes", nargs="+", default=[], help="only these")
    found.add_argument("--best-of", type=Path, help="results on validation images: also the recipe that is best there")
    found.add_argument("--seeds", nargs="+", type=int, default=[0])
    found.add_argument("--width", type=int, default=8)
    found.add_argument("--epochs", type=int, default=16, help="of every training on one version of each image")
    found.add_argument("--batch-size", type=int, default=64)
    found.add_argument("--budget", default="standard", help="of the attack: quick, standard or thorough")
    found.add_argument("--autoattack", type=int, default=0, help="images that AutoAttack (torchattacks) also attacks, at epsilon")
    found.add_argument("--cache", type=Path, default=Path("runs/robust-data"), help="folder of models and sets, by settings")
    found.add_argument("--workers", type=int, default=1, help="processes on the same device")
    return found


def main() -> None:
    """Measure the recipes that were asked for."""
    options = parser().parse_args()
    options.device = resolve_device(options.device)
    settings = f"{options.files}-width{options.width}-epochs{options.epochs}-batch{options.batch_size}"
    options.cache = options.cache / f"{Path(options.dataset).stem}-{settings}"  # models of other settings are others
    results = ResultsFile(options.out, device=options.device)
    measure(results, "robust-data", _measured(options, results), recorded_arguments(options))


def _measured(options: argparse.Namespace, results: ResultsFile) -> Iterator[Row]:
    """One row for each recipe and seed, as they are finished."""
    from robust_data_recipes import RECIPES, best, constructed, model_path, train_source

    asked = [*options.recipes, *(best(json.loads(options.best_of.read_text())["rows"]) if options.best_of else [])]
    wanted = {name: recipe for name, recipe in RECIPES.items() if not asked or name in asked}
    if unknown := set(asked) - wanted.keys():
        parser().error(f"unknown recipes: {', '.join(sorted(unknown))}; known: {', '.join(RECIPES)}")
    on = _evaluated_on(options)
    missing = [(name, seed) for seed in options.seeds for name in wanted if not results.has(variant=name, seed=seed, on=on)]
    untrained = [(wanted[name], seed) for name, seed in missing if not model_path(options, name, seed).exists()]
    sources = {(source, seed): None for recipe, seed in untrained for source in recipe.sources}
    sets = {(recipe.construction, seed): None for recipe, seed in untrained if recipe.construction}
    deadline = time.time() + 60 * options.minutes if options.minutes else float("inf")
    with ProcessPoolExecutor(options.workers, multiprocessing.get_context("spawn")) as pool:
        for function, needed in ((train_source, sources), (constructed, sets)):
            wait([pool.submit(_run, function, options, *key, deadline=deadline) for key in needed])
            print(f"{function.__name__}: {len(needed)} done", flush=True)
        failures = 0
        for future in as_completed([pool.submit(_measure, options, *key, deadline=deadline) for key in missing]):
            if failure := future.exception():
                failures += 1
                print(f"failed: {failure!r}", flush=True)
            elif row := future.result():
                yield {"files": options.files, "on": on, **row}
    if failures:
        raise SystemExit(f"{failures} of {len(missing)} recipes failed; the same command tries them again")


def _run(function: Callable[..., Any], *arguments: Any, deadline: float) -> None:
    """Call a function whose result is kept on disk, unless the time is up."""
    if time.time() < deadline:
        function(*arguments)


def _measure(options: argparse.Namespace, name: str, seed: int, *, deadline: float) -> Row | None:
    """The row of a recipe; None once the time is up."""
    from robust_data_recipes import measure_recipe

    return {"seed": seed, **measure_recipe(options, name, seed)} if time.time() < deadline else None


def _evaluated_on(options: argparse.Namespace) -> str:
    return "validation" if options.validation else "test"


if __name__ == "__main__":
    main()
