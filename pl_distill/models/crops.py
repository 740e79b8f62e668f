"""Crops for embedders, under the name of the floor that uses them; cutting is data work and lies in `datamodules`."""

from datamodules.crops import BLANK, Cropping, crop_animals, croppable

__all__ = ["BLANK", "Cropping", "crop_animals", "croppable"]
