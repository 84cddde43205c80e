"""What benchmarks on the models of a study share: its configuration, data and models."""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

from harness import TimeLimit, resolve_device

from notbugs import data, models
from notbugs.data import Dataset
from notbugs.runs.folder import RunFolder
from notbugs.study import classifiers, store
from notbugs.study import config as study_config
from notbugs.study.config import ResolvedConfig, StudyConfig
from notbugs.study.resolve import resolve


@dataclass(frozen=True)
class Benchmark:
    """A study on which something is measured.

    Attributes
    ----------
    folder : Path
        Its run folder.
    asked : StudyConfig
    config : ResolvedConfig
        The same with every setting decided.
    options : argparse.Namespace
    limit : TimeLimit
    """

    folder: Path
    asked: StudyConfig
    config: ResolvedConfig
    options: argparse.Namespace
    limit: TimeLimit

    @classmethod
    def of_study(cls, options: argparse.Namespace, limit: TimeLimit) -> "Benchmark":
        """The study in `options.run`, or a new one that replicates the paper."""
        device = resolve_device(options.device)
        speed = {"bf16": options.bf16, "compile": options.compile, "device": device}
        if (options.run / "run.json").exists():
            known = study_config.config_of_run(RunFolder.read(options.run))
            asked = replace(known, seeds=getattr(options, "seeds", None) or known.seeds, replicate=True, **speed)
        else:
            asked = StudyConfig(
                options.dataset,
                limit=options.limit,
                seed=getattr(options, "seed", 0),
                seeds=options.seeds or 3,
                network=options.network,
                width=options.width,
                epochs=options.epochs,
                replicate=True,
                **speed,
            )
        return cls(options.run, asked, resolve(asked, study_config.load(asked)), options, limit)

    @property
    def seeds(self) -> range:
        """Seeds of the study."""
        return range(self.config.seed, self.config.seed + self.config.seeds)

    def splits(self, seed: int | None = None) -> data.Splits:
        """The data set."""
        return study_config.load(self.config, seed)

    def test_images(self, count: int, seed: int | None = None) -> Dataset:
        """At most `count` test images, evenly spaced."""
        test = self.splits(seed).test
        return test.select(data.evenly_spaced(count, len(test)))

    def model(self, name: str, seed: int) -> models.Model:
        """A classifier of the study."""
        return store.load_model(self.config, self.folder, seed, name)

    def untrained(self, key: str, seed: int) -> models.Model:
        """A network of the study's architecture with random weights; key: what its seed is derived from."""
        train = self.splits(seed).train
        return models.build(
            self.config.network,
            shape=train.shape,
            classes=len(train.classes),
            width=self.config.width,
            seed=store.derive_seed(seed, key),
            **classifiers.pixel_statistics(train),
        )
