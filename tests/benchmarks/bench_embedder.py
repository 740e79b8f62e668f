"""What describing the animals of a frame costs beside tracking them."""

from datamodules.pen import load_pen_config, pen_frames
from pl_distill.models.embedder_load import load_embedder
from tests.benchmarks.measure import Figure, median_ms


def measure() -> list[Figure]:
    """Cut out and describe the eight animals of a drawn frame by the shipped embedder, all at once."""
    embedder = load_embedder()
    frame = next(iter(pen_frames(load_pen_config("day"), seed=1, frames=1)))
    boxes, masks = frame.boxes_xyxy[frame.visible], frame.masks[frame.visible]
    crops = embedder.crop(frame.image, boxes, masks)
    cut_ms = median_ms(lambda: embedder.crop(frame.image, boxes, masks), rounds=30)
    embed_ms = median_ms(lambda: embedder.describe(crops), rounds=30)
    return [
        Figure("embedder.crop_frame_ms", cut_ms, "ms"),
        Figure("embedder.describe_frame_ms", embed_ms, "ms"),
        Figure("embedder.animals_per_second", 1000 * len(crops) / (cut_ms + embed_ms), "1/s"),
    ]
