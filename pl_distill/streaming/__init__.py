"""SAM 3 frame by frame with bounded memory, usable without Lightning."""
