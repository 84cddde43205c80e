"""Whole runs with a folder, tables and a report: an audit, file scores, a study.

Each keeps what repeats it: the command in run.json, its arguments in config.toml.
"""

import shutil
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from os import PathLike, fspath
from pathlib import Path
from tempfile import mkdtemp
from typing import NamedTuple, Unpack

from notbugs import files
from notbugs.api.finished_run import Run
from notbugs.api.inputs import with_gradients
from notbugs.audit import AuditConfig
from notbugs.audit import run as run_audit
from notbugs.data import DataConfig
from notbugs.data_config import DataOptions, asked_options
from notbugs.files import FilesConfig
from notbugs.runs.arguments import keep_arguments, kept_on_open
from notbugs.runs.folder import RunFolder
from notbugs.study import pipeline
from notbugs.study.commands import command_with
from notbugs.study.config import StudyConfig, StudyOptions

Progress = Callable[[str, float, str], None]  # stage, share done, a few words


class Arguments(NamedTuple):
    """What the same call is on the command line: command, positional arguments and options by name."""

    command: str
    positional: Mapping[str, str]
    options: Mapping[str, object]


def _run(out: str | PathLike[str] | None, make: Callable[[Path, str], RunFolder], arguments: Arguments) -> Run:
    """A run in a folder, which keeps its arguments. Without one in a temporary folder, which goes with the result.

    make: called with the folder and the command that repeats the run.
    """
    command, positional, options = arguments
    line = command_with(command, [*positional.values()], options, None if out is None else Path(out))
    temporary = mkdtemp(prefix="notbugs-") if out is None else ""
    given = {**positional, **{name.replace("_", "-"): each for name, each in options.items()}}
    try:
        with kept_on_open(partial(keep_arguments, command=command, given=given)):
            run = Run(make(Path(temporary) / "run" if out is None else Path(out), line).folder)
    except BaseException:
        if temporary:
            shutil.rmtree(temporary, ignore_errors=True)
        raise
    if temporary:
        weakref.finalize(run, shutil.rmtree, temporary, ignore_errors=True)
    return run


@with_gradients
def audit(
    model: str | PathLike[str],
    dataset: str | PathLike[str],
    threats: Sequence[str] = (),
    *,
    out: str | PathLike[str] | None = None,
    budget: str = "standard",
    images: int | None = None,
    device: str = "cpu",
    workers: int | None = 1,
    progress: Progress | None = None,
    **options: Unpack[DataOptions],
) -> Run:
    """Audit one classifier in every threat model, with sanity checks and a report, as `notbugs attack --out` does.

    Parameters
    ----------
    model : str or path
        A file, or a name (documentation, "Models, every kind"). `attack` takes a classifier in memory.
    dataset : str or path
        As for `load_dataset`.
    threats : sequence of str
        "l2:0.5", "linf:8/255", "l0:1", "spatial:30,3". Default: an epsilon that suits the model or the images, and half of it.
    out : str or path, optional
        The run folder; an audit that is there is resumed. Default: one that is removed with the result.
    budget : {"quick", "standard", "thorough"}
    images : int, optional
        Attack so many test images. Default: all.
    device : str
        As given, "cpu" by default; commands take a GPU where there is one.
    workers : int, optional
        Processes. None: one for each core. More than one needs a main module that can be imported.
    progress : callable, optional
        Called with the stage, the share of it that is done in [0, 1], and a few words: `progress=print` works.
    **options
        resize, limit and the other fields of `data.DataConfig`.

    Returns
    -------
    Run
        `table("accuracy")`, `table("checks")`, `report()`.

    Raises
    ------
    InputError
        Before anything is written if the input cannot be used.

    Examples
    --------
    >>> import notbugs
    >>> model = notbugs.train("digits", epochs=1, width=4, out="model.safetensors")  # doctest: +SKIP
    >>> run = notbugs.audit("model.safetensors", "digits", ["l2:0.5"], images=4, budget="quick")  # doctest: +SKIP
    >>> [row["threat"] for row in run.table("accuracy")]  # doctest: +SKIP
    ['clean', 'l2 0.5']
    """
    data = DataConfig(fspath(dataset), **options)
    config = AuditConfig(fspath(model), data, threats=tuple(threats), budget=budget, images=images, device=device)
    options_asked = asked_options(config)
    asked = {"epsilon": options_asked.pop("threats", None), **options_asked, **asked_options(config.data)}
    return _run(
        out,
        lambda folder, command: run_audit(config, folder, command=command, workers=workers, report_progress=progress),
        Arguments("attack", {"model": config.model, "dataset": config.data.dataset}, asked),
    )


@with_gradients
def score_files(
    dataset: str | PathLike[str],
    *,
    out: str | PathLike[str] | None = None,
    norm: str = "l2",
    epsilon: float | None = None,
    folds: int = 3,
    repeats: int = 3,
    subset_regression: int = 0,
    width: int | None = None,
    epochs: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    workers: int | None = 1,
    progress: Progress | None = None,
    **options: Unpack[DataOptions],
) -> Run:
    """Score each training file: robust, non-robust, likely mislabeled, spurious cues; as `notbugs files` does.

    Parameters
    ----------
    dataset : str or path
        As for `load_dataset`.
    out : str or path, optional
        The run folder. Default: one that is removed with the result.
    norm : {"l2", "linf"}
    epsilon : float, optional
        Of adversarial training and of the attacks. Default: what suits the images.
    folds, repeats : int
        Each file is scored by models trained on the other folds, so many times.
    subset_regression : int
        Pairs of trainings on halves of the files, from which it is learned which combination of scores separates robust from
        non-robust files; 0: none.
    width, epochs : int, optional
        Of every training.
    seed : int
    device : str
        As given, "cpu" by default; commands take a GPU where there is one.
    workers : int, optional
    progress : callable, optional
    **options
        As for `audit`.

    Returns
    -------
    Run
        `table("files")`: a row for each file; the columns of scores are in [0, 1].

    Raises
    ------
    InputError
        Before anything is written if the input cannot be used.

    Examples
    --------
    >>> import notbugs
    >>> run = notbugs.score_files("digits", limit=100, width=4, epochs=1, folds=2, repeats=1)  # doctest: +SKIP
    >>> len(run.table("files"))  # doctest: +SKIP
    100
    """
    config = FilesConfig(
        DataConfig(fspath(dataset), **options),
        norm=norm,
        epsilon=epsilon,
        folds=folds,
        repeats=repeats,
        subset_regression=subset_regression,
        width=width,
        epochs=epochs,
        seed=seed,
        device=device,
    )
    return _run(
        out,
        lambda folder, command: files.run(config, folder, command=command, workers=workers, report_progress=progress),
        Arguments("files", {"dataset": config.data.dataset}, {**asked_options(config), **asked_options(config.data)}),
    )


@with_gradients
def study(
    dataset: str | PathLike[str],
    *,
    out: str | PathLike[str] | None = None,
    norm: str = "l2",
    epsilon: float | None = None,
    model: str | PathLike[str] | None = None,
    network: str | None = None,
    width: int | None = None,
    epochs: int | None = None,
    seed: int = 0,
    seeds: int | None = None,
    full: bool = False,
    device: str = "cpu",
    workers: int | None = 1,
    progress: Progress | None = None,
    **options: Unpack[StudyOptions],
) -> Run:
    """The whole study of a data set, as `notbugs run` does: standard and robust training, D_R, D_NR, D_rand, D_det, controls.

    Parameters
    ----------
    dataset : str or path
        As for `load_dataset`.
    out : str or path, optional
        The run folder; a study that is there is resumed. Default: one that is removed with the result.
    norm : {"l2", "linf"}
    epsilon : float, optional
        Default: what suits the images.
    model : str or path, optional
        A trained classifier that is studied as the standard one.
    network : str, optional
        As for `train`.
    width, epochs : int, optional
        Of every training.
    seed : int
        The first one.
    seeds : int, optional
        How many. Default: 1, for `digits` 3.
    full : bool
        Also all controls. Those of your own are always run (documentation, "My own attack, control or metric").
    device : str
        As given, "cpu" by default; commands take a GPU where there is one.
    workers : int, optional
        Stages at once. None: one for each core. More than one needs a main module that can be imported.
    progress : callable, optional
        Called with the stage, the share of it that is done in [0, 1], and a few words: `progress=print` works.
    **options
        resize, limit, relabel_epsilon, patience and all other fields of `study.config.StudyConfig`.

    Returns
    -------
    Run
        `table("accuracy")`, `table("sets")`, with `full` or controls of your own `table("controls")`; `report()`.

    Raises
    ------
    InputError
        Before anything is written if the input cannot be used.

    Examples
    --------
    >>> import notbugs
    >>> run = notbugs.study("digits", limit=200, width=4, epochs=1, seeds=1)  # doctest: +SKIP
    >>> {row["set"] for row in run.table("sets")} >= {"robust", "nonrobust"}  # doctest: +SKIP
    True
    """
    config = StudyConfig(
        fspath(dataset),
        norm=norm,
        epsilon=epsilon,
        model=None if model is None else fspath(model),
        network=network,
        width=width,
        epochs=epochs,
        seed=seed,
        seeds=seeds,
        full=full,
        device=device,
        **options,
    )
    return _run(
        out,
        lambda folder, command: pipeline.run(config, folder, command=command, workers=workers, report_progress=progress),
        Arguments("run", {"dataset": config.dataset}, asked_options(config)),
    )
