"""Adversarial robustness of image classifiers, and robust and non-robust features of image data sets.

    import notbugs

    digits = notbugs.load_dataset("digits")                            # labeled images, training and test part
    robust = notbugs.train(digits, loss="adversarial")                 # a robust classifier
    notbugs.attack(robust, digits, "l2:0.75", images=100)              # its robust accuracy, with 95 % CI
    notbugs.make_robust(robust, digits).dataset                        # D_R: only what the robust classifier uses

Functions, from a data set to a report:

    load_dataset     folders, archives, parquet, Hugging Face, built-in digits -> Splits
    train            standard training, adversarial training, TRADES -> classifier
    attack           robust accuracy of a classifier in memory, or of a file
    make_robust      D_R: features of a robust classifier alone (Ilyas et al. 2019)
    make_nonrobust   D_NR: features of a standard classifier alone
    relabel          D_rand, D_det: perturbed towards other classes, and labeled as these
    score_files      which files are robust, mislabeled, or rely on spurious cues
    audit            one classifier in every threat model, with sanity checks and a report
    study            the whole study of a data set, with its controls and a report

Submodules, which load when they are first used:

    data, models, train, attacks, construct, metrics     what the functions above are made of
    search           threat models, objectives, update rules: the one loop that perturbs images
    study, files, audit, report, runs, gate, datacheck   runs, their tables and pages
    stats, theory, errors                                intervals, the two-Gaussian model, InputError
    extensions                                           attacks, controls, constructions and metrics of your own

`help(notbugs.attack)` shows parameters and an example. `train`, `audit` and `study` are functions and packages. For type checkers
they are functions; the types in them: `from notbugs.train import fit`.
"""

from notbugs.lazy import attach

__version__ = "0.1.0"

__getattr__, __dir__ = attach(
    __name__,
    functions={
        "load_dataset": "notbugs.api",
        "train": "notbugs.api",
        "attack": "notbugs.api",
        "make_robust": "notbugs.api",
        "make_nonrobust": "notbugs.api",
        "relabel": "notbugs.api",
        "score_files": "notbugs.api",
        "audit": "notbugs.api",
        "study": "notbugs.api",
    },
    submodules=(
        "api",
        "attacks",
        "audit",
        "construct",
        "data",
        "datacheck",
        "errors",
        "extensions",
        "files",
        "gate",
        "metrics",
        "models",
        "predict",
        "report",
        "review",
        "runs",
        "search",
        "stats",
        "study",
        "theory",
        "train",
    ),
)
