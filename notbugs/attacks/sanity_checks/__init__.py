"""Sanity checks of a robust accuracy: reasons why attacks may fail although the model is not robust."""

from notbugs.attacks.sanity_checks.check import Check
from notbugs.attacks.sanity_checks.class_order import above_chance, class_order
from notbugs.attacks.sanity_checks.forward import (
    batch_independence,
    deterministic,
    input_clipping,
    input_quantization,
    outputs_are_logits,
    pixel_range,
)
from notbugs.attacks.sanity_checks.gradients import gradients, larger_epsilon, more_steps, unbounded
from notbugs.attacks.sanity_checks.other_attacks import square_attack, transfer
from notbugs.attacks.sanity_checks.suite import run_all
from notbugs.attacks.sanity_checks.under_attack import finite_logits, randomness_averaged

__all__ = [
    "Check",
    "above_chance",
    "batch_independence",
    "class_order",
    "deterministic",
    "finite_logits",
    "gradients",
    "input_clipping",
    "input_quantization",
    "larger_epsilon",
    "more_steps",
    "outputs_are_logits",
    "pixel_range",
    "randomness_averaged",
    "run_all",
    "square_attack",
    "transfer",
    "unbounded",
]
