"""Adversarial robustness of image classifiers, and robust and non-robust features of image data sets."""

__version__ = "0.1.0"
