"""The animal over time: a pool of embeddings, matching against it, and the longitudinal record."""
