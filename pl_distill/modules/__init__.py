"""LightningModules: what a step computes, nothing else."""
