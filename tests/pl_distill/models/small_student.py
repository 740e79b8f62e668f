"""A student small enough for tests of how it is built, saved and read."""

SIZES = {
    "body": "tiny_vit_5m_224",
    "embed_dims": [16, 16, 32, 32],
    "depths": [1, 1, 1, 1],
    "num_heads": [1, 1, 2, 2],
    "window_sizes": [7, 8, 4, 2],
    "body_size": 64,
    "grid": 8,
    "fpn_channels": 16,
    "norm_groups": 4,
}
