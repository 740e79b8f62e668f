"""The recipes, shipped inside the wheel as ``pl_distill.configs``."""
