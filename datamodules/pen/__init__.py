"""The drawn pen: clips in the Edinburgh layout, made from a seed."""
