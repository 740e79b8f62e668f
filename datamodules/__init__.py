"""What lies on disk and how it becomes batches. The ground floor: imports neither ``pl_distill`` nor ``callbacks``."""
