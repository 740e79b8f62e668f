"""Distil SAM 3 into a small student and track every animal of a pen with it."""

__version__ = "0.1.0"
