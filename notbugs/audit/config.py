"""The configuration of an audit: one classifier, its images, its threat models."""

from dataclasses import dataclass, replace

from notbugs.data import DataConfig

TARGET_RULES = {"random": "a random wrong class of each image", "least-likely": "the least likely wrong class of each image"}


@dataclass(frozen=True)
class AuditConfig:
    """One classifier, its images and its threat models.

    Parameters
    ----------
    model : str
        As `models.classifier_by_name` takes it.
    data : DataConfig
        The data set, whose test images are attacked.
    threats : tuple of str
        As `parse_threat_model` takes them: "l2:0.5", "linf:8/255", "l0:1", "spatial:30,3". "auto", "l2:auto" or "linf:auto": the
        epsilon that the model was trained with, or else one that suits the images, and half of it. Empty: "auto".
    mask : str, optional
        A file that says which pixels may change, in every threat model (`data.read_mask`).
    target : str, optional
        Attacks are targeted: at the class of this name, at a `random` wrong class for each image, at the `least-likely` one, or
        at the class that a table has for each image (`audit.target_file`).
    only_classes : tuple of str, optional
        Attack only images of these classes. Every class may be predicted.
    budget : {"quick", "standard", "thorough"}
        Of the attack ensemble.
    images : int, optional
        Attack at most this many test images, evenly spaced.
    others : tuple of str
        Other models of the same task, whose adversarial examples are tried on this one.
    network : str, optional
        What the weights in the model's file belong to, as `models.classifier_by_name` takes it.
    classes : str, optional
        A file with the names of the model's outputs (`models.output_names.read_classes`). Default: its own, if it has any.
    class_map : str, optional
        Which outputs each class of the data set has (`models.output_names.read_class_map`).
    mean, std, pixel_range : tuple of float, optional
        Preprocessing that the model needs and does not do itself (`models.preprocessing.Preprocessing`).
    epsilon_reason : str
        Why an epsilon that the user left open has its value: set by `default_threats.with_epsilon`.
    device : str
    """

    model: str
    data: DataConfig
    threats: tuple[str, ...] = ()
    budget: str = "standard"
    images: int | None = None
    others: tuple[str, ...] = ()
    network: str | None = None
    classes: str | None = None
    class_map: str | None = None
    device: str = "cpu"
    mask: str | None = None
    target: str | None = None
    only_classes: tuple[str, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    pixel_range: tuple[float, ...] | None = None
    epsilon_reason: str = ""


def all_classes(config: AuditConfig) -> AuditConfig:
    """The same images and those of all other classes: predictions of a few classes alone say little of a model."""
    return replace(config, only_classes=None, target=None)
