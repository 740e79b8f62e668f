"""Errors of this floor that a user can cause; the readers' own are in `datamodules.errors`."""

from datamodules.errors import UserError


class ConfigError(UserError):
    """A command line or recipe says something that the program does not understand."""


class CheckpointError(UserError):
    """Weights on disk do not fit the network that is to hold them."""
