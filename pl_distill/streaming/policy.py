"""What a stream may forget, and which of SAM 3's habits it corrects.

Source of the retirement rule: the "hotstart" of SAM 3 (transformers, models/sam3_video, `_process_hotstart`). There it
holds back the first 15 frames of an animal to decide about it and is therefore off when streaming; ours decides without
holding anything back, so that a false track is seen for a few frames, then hidden, and then ends.
"""

from dataclasses import dataclass, field
from typing import Literal

from pl_distill.errors import ConfigError

Mode = Literal["exact", "bounded", "none"]


@dataclass(frozen=True)
class Retirement:
    """When a track ends for good, and when it is not shown. A limit of 0 is switched off.

    A retired animal that is found again gets a new id, unless it is recognised by its looks (`Appearance`). Every live
    track costs one pass of the tracker per frame.

    Args:
        probation_frames: A track younger than this is on probation. Higher: more false tracks are caught, and more true
            ones die that begin in a crowd. Lower: false tracks that outlive it stay for as long as `unmatched_frames`
            lets them.
        probation_misses: On probation, a track ends when its mask had no detection that fits it well
            (``trk_assoc_iou_thresh`` of the model) in so many frames. Higher: false tracks are seen for longer. Lower:
            animals that the detector sees badly never get a track.
        unmatched_frames: It ends when frames without a detection outnumber those with one by so many, counted from
            when they were last level. Higher: tracks on straw, and on an animal that has one already, stay. Lower:
            animals lose their identity while the detector misses them.
        hidden_frames: It goes on but is not shown from so many frames in a row without a detection on, until it has one
            again. Higher: what is left of a track whose animal another one took is seen for longer. Lower: animals that
            the detector misses for a moment disappear.
        empty_frames: It ends after so many frames in a row without a mask. Higher: animals that left cost time for
            longer. Lower: an animal that was hidden for longer comes back as another one (see `Appearance`).
        pause_s: All tracks end when the camera showed nothing for more than so many seconds: nobody knows who lies
            where now. Higher: an id may go on for another animal. Lower: a short drop-out costs all identities.
    """

    probation_frames: int = 15
    probation_misses: int = 8
    unmatched_frames: int = 15
    hidden_frames: int = 3
    empty_frames: int = 150
    pause_s: float = 60.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            _at_least(0, f"retirement.{name}", value)


@dataclass(frozen=True)
class Appearance:
    """When a track takes the identity of an animal that it looks like, because the two changed places or it was lost.

    Chosen with `pen_embedder`, where a look agrees with the mean of its own animal by 0.85 and with that of the other
    most like it by 0.70; for another embedder look at yours first.

    Args:
        embedder: Whose vectors are compared: a shipped one, a folder, a hub name, or a DINOv3 of timm.
        fps: Looks per second; frames between them are not described. Higher: slower, and nothing was gained in a pen.
        overlap: Animals whose box overlaps another's by so much (IoU) are not looked at. Higher: looks of two animals
            mixed. Lower: those that lie in piles are never recognised.
        recent: What was seen in so many moments of late says whom a track follows; an animal learns what was seen
            twice as long ago. Higher: a mistake stands for longer, and animals are known later. Lower: one bad look
            makes one.
        needed: In so many of these moments at least it must have been seen. Higher: animals in piles are not
            recognised. Lower: see `recent`.
        settled: After so many looks that it has learned (they fade) an animal is known. Higher: later. Lower: it is
            known by what a track saw in its first, unsure second.
        decay: What a look of an animal weighs after the next one. Lower: it may change faster, and a wrong look counts
            for more.
        likeness: A new track is an animal that was known before from so large a cosine on. Higher: animals that were
            lost become new ones. Lower: a new animal takes the identity of one that was lost.
        lead: By so much a known track must look more like another animal than like its own; where two change places,
            both together by twice as much. By so much a new track must look more like an animal than like any other
            that is free. Higher: tracks that changed places stay so, and fewer animals are recognised. Lower: those
            that look alike are mistaken for each other.
        animals: So many are remembered beside those that have a track: the ones seen last.
    """

    embedder: str = "pen_embedder"
    fps: float = 6.0
    overlap: float = 0.3
    recent: int = 8
    needed: int = 3
    settled: int = 12
    decay: float = 0.99
    likeness: float = 0.7
    lead: float = 0.15
    animals: int = 64

    def __post_init__(self) -> None:
        for name in ("recent", "needed", "settled", "animals"):
            _at_least(1, f"appearance.{name}", getattr(self, name))
        for name in ("likeness", "lead"):
            _at_least(0, f"appearance.{name}", getattr(self, name))
        for name in ("fps", "overlap"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"appearance.{name}", f"is {getattr(self, name)}", "above 0", "Correct it.")
        if not 0 < self.decay <= 1 or self.settled * (1 - self.decay) >= 1:
            raise ConfigError(
                "appearance.decay", f"is {self.decay}, so that looks weigh less than {self.settled} together",
                f"above 1 - 1 / settled ({1 - 1 / max(self.settled, 1):g}), at most 1", "Raise it, or lower settled.",
            )  # fmt: skip
        if self.needed > self.recent:
            raise ConfigError(
                "appearance.needed", f"is {self.needed}", f"at most recent ({self.recent})", "Correct one of the two."
            )


@dataclass(frozen=True)
class PruningPolicy:
    """How `StreamingTracker` treats SAM 3's session. The default forgets what cannot matter and mends what is broken.

    Args:
        mode: ``exact`` drops what no later frame reads: not one bit of the output changes, and memory grows by one
            pointer (1 kB) for every frame in which an animal was reconditioned, and the time of a frame with it.
            ``bounded`` drops the pointers of old
            conditioning frames too: strictly bounded per live animal, and the same bits until an animal has more
            conditioning frames than the model attends to (4). ``none`` drops nothing: megabytes per frame, for
            comparison only.
        retirement: When tracks end. None: never, as in transformers.
        appearance: How animals are recognised by their looks. None: they are not, as in transformers; a track that goes
            on with another animal keeps its identity.
        suppress_duplicates: Of detections that overlap by `det_nms_thresh` of the model's configuration, the best
            alone counts. transformers does so only with a package from the hub, and silently does not without it.
        fill_holes: Holes of a mask of up to `fill_hole_area` pixels of the model's configuration (0: none) are filled;
            the same is true of transformers.
        one_to_one: A detection speaks for one track, that which it fits best with all others served too. transformers
            lets it confirm every track that it overlaps, so that two that have come to lie on one animal never end.
        protect_memories: A new animal does not touch the memory of the others. transformers runs the tracker on all of
            them again and replaces their newest memory by that of an unsuppressed, binarised mask.
        full_window: Weigh pointers from the first frame on as in a whole video. transformers' own streaming counts the
            frames so far, and differs from its own result on the whole video for about 15 frames.
        fuse_boxes: A track's box is the mean of that around its mask and that of the detection that confirms it in this
            frame; the two err apart. SAM 3's is the first alone. Nothing is kept of it: the next frame is the same.
        skip_blank: A picture of one colour, as a camera sends that lost its signal, is not shown to the model: seven of
            them would wipe out every memory but the conditioning frames.
        window_frames: Keep only the last so many frames of each animal, and so many of its conditioning frames, where
            the model would read more; None: all that it reads (15 pointers, 6 memories, 4 conditioning frames at real
            size). Lower: less memory per animal and a faster frame, shorter memory. `pl-distill window` measures what
            that costs.
        lean_necks: Do not compute the level of both necks that nobody reads, nor keep unread position encodings: the
            same bits in less memory.
        lean_activations: Turn an animal's memories one after the other, copy no pyramid, and let go of the detector's
            before the tracker runs: the same bits in less memory.
        encode_singly: Encode the animals' memories one after the other, not in one batch, whose activations are most of
            what the tracker takes. The last bits differ where a kernel depends on the batch; `track` does so.
        max_objects: Most animals alive at a time, if the model's configuration does not say less; the detections with
            the highest scores come first.
    """

    mode: Mode = "exact"
    retirement: Retirement | None = field(default_factory=Retirement)
    appearance: Appearance | None = None
    suppress_duplicates: bool = True
    fill_holes: bool = True
    one_to_one: bool = True
    protect_memories: bool = True
    full_window: bool = True
    fuse_boxes: bool = False
    skip_blank: bool = True
    window_frames: int | None = None
    lean_necks: bool = True
    lean_activations: bool = True
    encode_singly: bool = False
    max_objects: int = 100

    def __post_init__(self) -> None:
        if self.mode not in ("exact", "bounded", "none"):
            raise ConfigError("policy.mode", f"is {self.mode!r}", "exact, bounded or none", "Correct it.")
        _at_least(1, "policy.max_objects", self.max_objects)
        if self.window_frames is not None:
            _at_least(1, "policy.window_frames", self.window_frames)
            if self.mode == "none":
                raise ConfigError("policy.window_frames", "is given", "exact or bounded as policy.mode", "Correct it.")

    @classmethod
    def as_transformers(cls, mode: Mode = "none") -> "PruningPolicy":
        """Return the policy under which a stream gives what transformers alone gives; with `mode`, in less memory."""
        return cls(
            mode,
            retirement=None,
            suppress_duplicates=False,
            fill_holes=False,
            one_to_one=False,
            protect_memories=False,
            full_window=False,
            skip_blank=False,
            lean_necks=False,
            lean_activations=False,
            max_objects=10**6,
        )


def _at_least(least: int, where: str, value: float) -> None:
    if value < least:
        raise ConfigError(where, f"is {value}", f"at least {least}", "Correct it.")
