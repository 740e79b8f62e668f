"""What each codec saves and loses on a teacher's maps, measured on frames that no basis was fitted on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from datamodules.codec_basis import fit_basis
from datamodules.codecs import FLOAT16, Codec, Int8, PcaInt8

LARGE = 4
"""So many channels are made a hundred times larger in the second measurement: real trunks have such."""

VECTORS = 512  # locations of a map that a basis is fitted on, as `predict` takes of 64 frames


@dataclass(frozen=True)
class CodecRow:
    """One codec on some maps.

    Args:
        codec: Its name.
        floor: The cosine that it promises.
        part: Bytes over those of plain float16.
        part_zstd: The same with zstd over each map's file.
        cosine: Least over frames of the mean over locations of the cosine with the teacher's map.
        cosine_alike: The same after each channel is divided by its root mean square, so that none drowns the others.
        large_part: `part` with four channels a hundred times larger.
        large_cosine: `cosine` then.
        large_cosine_alike: `cosine_alike` then.
    """

    codec: str
    floor: float
    part: float
    part_zstd: float
    cosine: float
    cosine_alike: float
    large_part: float
    large_cosine: float
    large_cosine_alike: float


def measure_codecs(sample: Tensor, maps: Tensor) -> list[CodecRow]:
    """Store and read maps with every codec.

    Args:
        sample: Maps (F, C, h, w) that bases are fitted on.
        maps: Other maps (B, C, h, w) of the same teacher.
    """
    factor = torch.full((maps.shape[1],), 0.01)  # the others are made smaller, which stays in float16's range
    factor[torch.linspace(0, len(factor) - 1, LARGE).long()] = 1.0
    raised = [part.float() * factor[:, None, None] for part in (sample, maps)]
    rows = []
    for plain, large in zip(_codecs(sample.float()), _codecs(raised[0]), strict=True):
        part, part_zstd, cosine, alike = _measure(plain, maps.float())
        large_part, _, large_cosine, large_alike = _measure(large, raised[1])
        rows.append(
            CodecRow(plain.name, plain.floor, part, part_zstd, cosine, alike, large_part, large_cosine, large_alike)
        )
    return rows


def format_codecs(rows: Sequence[CodecRow]) -> str:
    """Return the rows as a Markdown table."""
    lines = [
        "| codec | bytes | with zstd | cosine | channels alike | four channels x 100: bytes | cosine | channels alike "
        "| floor |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| `{row.codec}` | {row.part:.3f} | {row.part_zstd:.3f} | {row.cosine:.5f} | {row.cosine_alike:.5f} "
        f"| {row.large_part:.3f} | {row.large_cosine:.5f} | {row.large_cosine_alike:.5f} | {row.floor} |"
        for row in rows
    ]
    return "\n".join(lines)


def _codecs(sample: Tensor) -> list[Codec]:
    vectors = sample.flatten(2).transpose(1, 2)  # (F, h*w, C)
    every = max(1, vectors.shape[1] // VECTORS)
    return [FLOAT16, Int8(), PcaInt8(fit_basis(vectors[:, ::every]))]


def _measure(codec: Codec, maps: Tensor) -> tuple[float, float, float, float]:
    import zstandard

    files = [b"".join(codec.pack(values)) for values in codec.quantise(maps)]
    back = torch.from_numpy(np.stack([codec.unpack(data) for data in files])).float()
    level = maps.square().mean((0, 2, 3)).sqrt().clamp_min(torch.finfo(torch.float32).tiny)[:, None, None]
    compress = zstandard.ZstdCompressor(level=3).compress
    whole = 2 * maps.numel()
    return (
        sum(map(len, files)) / whole,
        sum(len(compress(data)) for data in files) / whole,
        _worst_cosine(maps, back),
        _worst_cosine(maps / level, back / level),
    )


def _worst_cosine(maps: Tensor, back: Tensor) -> float:
    return float(F.cosine_similarity(maps, back, dim=1).mean((1, 2)).min())
