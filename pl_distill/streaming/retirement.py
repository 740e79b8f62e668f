"""Keep count of what speaks against every track, and say when one is hidden and when it ends."""

from collections.abc import Iterable
from dataclasses import dataclass

from pl_distill.streaming.policy import Retirement
from pl_distill.streaming.sam3_stream import Evidence


@dataclass
class _Life:
    age: int = 0
    misses: int = 0
    unmatched_balance: int = 0
    unmatched_in_a_row: int = 0
    empty: int = 0


class TrackLives:
    """The lives of all tracks of one stream.

    Args:
        rules: When a track ends.
    """

    def __init__(self, rules: Retirement) -> None:
        self.rules = rules
        self._lives: dict[int, _Life] = {}

    def observe(self, live: Iterable[int], evidence: Evidence) -> dict[int, str]:
        """Take one frame's evidence and return the tracks that end with it, each with the reason.

        Args:
            live: Every track that is alive after the frame; a new one has no evidence yet.
            evidence: For the tracks that were alive before it.
        """
        self._lives = {track: self._lives.get(track, _Life()) for track in live}
        ended: dict[int, str] = {}
        for track, life in self._lives.items():
            self._count(track, life, evidence)
            reason = self._reason(life)
            if reason is not None:
                ended[track] = reason
        for track in ended:
            del self._lives[track]
        return ended

    def hidden(self) -> set[int]:
        """Return the live tracks that are not to be shown in the frame that was observed last."""
        limit = self.rules.hidden_frames
        return {track for track, life in self._lives.items() if 0 < limit <= life.unmatched_in_a_row}

    def _count(self, track: int, life: _Life, evidence: Evidence) -> None:
        life.age += 1
        missed = track in evidence.unmatched
        if life.age <= self.rules.probation_frames:
            life.misses += missed
        if missed != (track in evidence.matched):  # a loose match that is too weak to confirm the track says nothing
            life.unmatched_balance = max(life.unmatched_balance + (1 if missed else -1), 0)
        if track in evidence.matched:
            life.unmatched_in_a_row = 0
        elif missed:
            life.unmatched_in_a_row += 1
        life.empty = life.empty + 1 if track in evidence.empty else 0

    def _reason(self, life: _Life) -> str | None:
        rules = self.rules
        if life.age <= rules.probation_frames and 0 < rules.probation_misses <= life.misses:
            return f"no detection that fits in {life.misses} of its first {life.age} frames"
        if 0 < rules.unmatched_frames <= life.unmatched_balance:
            return f"{life.unmatched_balance} more frames without a detection than with one of late"
        if 0 < rules.empty_frames <= life.empty:
            return f"no mask for {life.empty} frames"
        return None
