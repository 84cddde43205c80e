"""Rows on features, layers and spurious cues."""

from dataclasses import dataclass
from typing import ClassVar

from notbugs.runs.tables.row import Row


@dataclass(frozen=True, kw_only=True)
class FeatureRow(Row):
    """Usefulness (rho, in [0, 1]) and robust usefulness (gamma, at most rho) of one feature for one class."""

    table: ClassVar[str] = "features"
    feature: int
    class_name: str
    sign: int
    usefulness: float
    usefulness_ci_low: float
    usefulness_ci_high: float
    robust_usefulness: float
    robust_usefulness_ci_low: float
    robust_usefulness_ci_high: float
    category: str
    significant: bool
    n: int
    n_attacked: int
    steps: int


@dataclass(frozen=True, kw_only=True)
class FeatureCategoryRow(Row):
    """One feature of a standard model; its category is that of `FeatureRow` for the class that it is most useful for.

    spurious: useful on held-out files, at most half as useful on the test part, for drop_class. usefulness_kept: share of its
    usefulness, over all classes, on the versions of the files. cue: the one that correlates with it most.
    """

    table: ClassVar[str] = "feature_categories"
    feature: int
    category: str
    class_name: str
    sign: str
    usefulness: float
    robust_usefulness: float
    spurious: bool
    drop_class: str
    usefulness_drop: float
    test_usefulness: float
    p_value: float
    usefulness_kept_on_robust: float
    usefulness_kept_on_nonrobust: float
    cue: str
    cue_correlation: float


@dataclass(frozen=True, kw_only=True)
class LayerRow(Row):
    """How far a perturbation moves a layer, relative to the distance between images."""

    table: ClassVar[str] = "layers"
    layer: str
    features: int
    distance_moved: float
    distance_between_images: float
    ratio: float
    n: int
    steps: int


@dataclass(frozen=True, kw_only=True)
class SpuriousCueRow(Row):
    """One cue (a property of an image that has a name) for the class whose usefulness drops most on the test part."""

    table: ClassVar[str] = "spurious_cues"
    name: str
    class_name: str
    sign: str
    usefulness: float
    test_usefulness: float
    test_usefulness_ci_low: float
    test_usefulness_ci_high: float
    usefulness_drop: float
    p_value: float
    spurious: bool
    n: int
    test_n: int
    accuracy_usual: float
    accuracy_unusual: float
    accuracy_gap: float
    accuracy_gap_ci_low: float
    accuracy_gap_ci_high: float


@dataclass(frozen=True, kw_only=True)
class FeaturePictureRow(Row):
    """A picture of a feature: a file with a high value, an image that maximizes it, or its gradient."""

    table: ClassVar[str] = "feature_pictures"
    feature: int
    category: str
    class_name: str
    cue: str
    column: str
    file: str | None = None
    label: str | None = None
    picture: str


@dataclass(frozen=True, kw_only=True)
class CuePictureRow(Row):
    """A file with much (group most, of the training part) or little (least, of the test part) of a spurious cue."""

    table: ClassVar[str] = "cue_pictures"
    name: str
    class_name: str
    group: str
    file: str
    predicted: str
    value: float
    picture: str
