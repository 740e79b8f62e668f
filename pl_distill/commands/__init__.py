"""One file per verb of the console script."""
