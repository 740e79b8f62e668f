"""Networks, pure torch: no Lightning, no files of data."""
