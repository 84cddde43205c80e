"""On which images the settings of a study were chosen: where on its test images, its figures are optimistic."""

from notbugs.report.results import StudyResults

CHOSEN = {
    "digits": "Network, weight decay, epochs, batch size and ε of this data set were chosen on these test images: the figures "
    "are optimistic.",
    "mnist5k": "Settings of the relabeled sets of this data set and the noise in adversarial training were chosen on training "
    "images alone. The others were tried "
    "before on images of which some are test images here, and kept after a trial on training images.",
    "planted": "ε, network and inversion steps of this data set were chosen on its test images of seed 0.",
}
ELSEWHERE = (
    "Options that were not given are defaults. They were chosen on digits, MNIST and CIFAR-10, in part on test images of these; "
    "ε, if it was not given, on the training images."
)


def where_settings_were_chosen(results: StudyResults) -> str:
    """A sentence or two, for the findings that depend on it."""
    return CHOSEN.get(results.metadata.dataset, ELSEWHERE)
