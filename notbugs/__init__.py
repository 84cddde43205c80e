"""Robust and non-robust features of image data sets: measure, prevent, split, explain."""

__version__ = "0.1.0"
