"""Training: one loop (`fit`). Standard training, adversarial training and TRADES differ only in the loss."""

from notbugs.train import loggers
from notbugs.train.augment import Augment, add_noise, random_translate
from notbugs.train.batchnorm import adapt_batchnorm
from notbugs.train.fit import fit
from notbugs.train.losses import Loss, TrainingAttack, adversarial_loss, cross_entropy, trades
from notbugs.train.optimizers import EarlyStopping, MakeOptimizer, RateShape, adamw, sgd, step_decay
from notbugs.train.state import Checkpoint, Epoch

__all__ = [
    "Augment",
    "Checkpoint",
    "EarlyStopping",
    "Epoch",
    "Loss",
    "MakeOptimizer",
    "RateShape",
    "TrainingAttack",
    "adamw",
    "adapt_batchnorm",
    "add_noise",
    "adversarial_loss",
    "cross_entropy",
    "fit",
    "loggers",
    "random_translate",
    "sgd",
    "step_decay",
    "trades",
]
