"""`StreamingTracker`: one RGB frame in, the tracks of that frame out, for as long as the camera runs."""

import logging
from types import TracebackType
from typing import Any

import numpy as np
import torch

from datamodules.clip import Image
from datamodules.preprocessing import Preprocessing
from pl_distill.errors import ConfigError
from pl_distill.models.embedder import Embedder
from pl_distill.models.prompts import PromptEmbedding
from pl_distill.streaming.policy import PruningPolicy
from pl_distill.streaming.postprocess import Tracks, to_tracks, with_mean_boxes
from pl_distill.streaming.recognition import Recognition
from pl_distill.streaming.retirement import TrackLives
from pl_distill.streaming.sam3_stream import Sam3Stream
from pl_distill.streaming.session import StreamingSession
from pl_distill.streaming.watch import CameraWatch

logger = logging.getLogger(__name__)


class StreamingTracker:
    """Follows every animal that a prompt names, frame by frame; with ``mode="bounded"`` for as long as you like.

    Example::

        model, prompt = load_sam3(folder), choose_prompt(load_prompts(folder), "pig")
        tracker = StreamingTracker(model, prompt, load_preprocessing(folder), PruningPolicy(mode="bounded"))
        for frame in clip.frames():
            tracks = tracker.update(frame.image, frame.timestamp_s)

    Args:
        model: A `Sam3VideoModel` as `load_sam3` or `substitute` gives it, on the device where it is to run. It is
            neither changed nor copied.
        prompt: What to look for.
        preprocessing: What the model expects of its input.
        policy: What to forget, and when tracks end.
        embedder: What `policy.appearance` names, loaded: tells animals by their looks. None without it.

    Raises:
        ConfigError: The policy asks for an embedder and there is none, or the other way round; the model's weights are
            of several dtypes, or the prompt is of another width than the model.
    """

    def __init__(
        self,
        model: Any,
        prompt: PromptEmbedding,
        preprocessing: Preprocessing,
        policy: PruningPolicy | None = None,
        embedder: Embedder | None = None,
    ) -> None:
        self.policy = PruningPolicy() if policy is None else policy
        self.embedder = embedder
        if (embedder is None) != (self.policy.appearance is None):
            raise ConfigError(
                "policy.appearance", "is given without an embedder, or an embedder without it", "both or neither",
                "Load the embedder that it names: load_embedder(policy.appearance.embedder).",
            )  # fmt: skip
        self.model: Sam3Stream | None = Sam3Stream.of(model, self.policy)
        self.prompt = prompt
        self.preprocessing = preprocessing
        self._device = next(model.parameters()).device
        self._dtype = _common_dtype(model)
        _check_prompt(model, prompt)
        self._is_torn = False  # whether a frame was begun and not finished
        self.reset()

    def update(self, frame: Image, timestamp_s: float) -> Tracks:
        """Take the next frame and return its tracks.

        Args:
            frame: RGB, shape (H, W, 3), uint8. The size may change from frame to frame.
            timestamp_s: When it was taken, in seconds from any origin.

        Raises:
            ValueError: The frame has another shape or dtype.
            RuntimeError: The tracker is closed, or was stopped in the middle of a frame, by an error or an interrupt:
                its records of who is alive may contradict each other until `reset`.
        """
        if self.model is None:
            raise RuntimeError("the tracker is closed")
        if self._is_torn:
            raise RuntimeError("the tracker was stopped in the middle of a frame: call reset() to begin anew")
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype.name != "uint8":
            raise ValueError(f"frame is {frame.dtype} of shape {frame.shape}, expected uint8 of shape (H, W, 3)")
        self._is_torn = True
        contiguous = np.ascontiguousarray(frame)  # torch refuses a view with reversed channels, as OpenCV's users give
        tracks = self._track(self.model, contiguous, timestamp_s)
        self._is_torn = False
        return tracks

    def _track(self, model: Sam3Stream, frame: Image, timestamp_s: float) -> Tracks:
        number = self._taken
        self._taken += 1
        shows_something = self._watch.look(frame, timestamp_s)
        if self.policy.skip_blank and not shows_something:
            return Tracks.nothing(frame.shape[0], frame.shape[1])
        self._end_after_pause(number, timestamp_s)
        with torch.inference_mode():
            pixels = self.preprocessing(frame)
            output = model(inference_session=self.session, frame=pixels, frame_idx=self.frames)
            tracks = to_tracks(output, frame.shape[0], frame.shape[1], self._retire(number))
            self.session.prune(self.frames)
        self.frames += 1
        if self._recognition is not None:  # by boxes around masks: who is who does not hang on which are reported
            self._recognition.identities.keep(self.session.obj_ids)
            tracks = self._recognition.identify(frame, tracks, timestamp_s, number)
        if not self.policy.fuse_boxes:
            return tracks
        shown = {self._shown_as(track): box for track, box in model.detected.items()}
        return with_mean_boxes(tracks, shown)

    def session_bytes(self) -> int:
        """Return the bytes of all tensors that are kept from frame to frame."""
        looks = 0 if self._recognition is None else self._recognition.identities.bytes()
        return self.session.tensor_bytes() + looks

    def remembered(self) -> set[int]:
        """Return the ids of all tracks that are alive, shown or not, and of animals that would be recognised."""
        return set(self.session.obj_ids) if self._recognition is None else self._recognition.identities.remembered()

    def reset(self) -> None:
        """Forget everything, as if no frame had been seen: another video begins, and ids begin again."""
        if self.model is None:
            raise RuntimeError("the tracker is closed")
        self.frames = 0  # given to the model so far
        self._is_torn = False
        self._taken = 0  # blank ones that the model was not shown among them, as whoever gives the frames counts
        self.session = StreamingSession(
            self.model.config, self.prompt, self.policy, device=self._device, dtype=self._dtype
        )
        self.model._at_limit = False
        self._shown_s: float | None = None  # time of the newest frame that the model was shown
        self._paused: int | None = None  # the newest frame with which all tracks ended
        self._is_slow = False
        self._watch = CameraWatch()
        self._lives = None if self.policy.retirement is None else TrackLives(self.policy.retirement)
        self._recognition = self._begin_recognition()

    def close(self) -> None:
        """Let go of the model and of all memory; the tracker cannot be used again."""
        if self.model is not None:
            self.reset()
            self.model = self.embedder = self._recognition = None

    def __enter__(self) -> "StreamingTracker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _end_after_pause(self, number: int, timestamp_s: float) -> None:
        """End all tracks where too much time has passed since the model was shown a frame."""
        rules, last_s, self._shown_s = self.policy.retirement, self._shown_s, timestamp_s
        if rules is None or last_s is None or not 0 < rules.pause_s < timestamp_s - last_s:
            return
        if self.session.obj_ids:
            self._judge_pace(number, rules.pause_s)
        for track in list(self.session.obj_ids):
            logger.info("frame %d: track %s ends, a pause of %.0f s", number, self._called(track), timestamp_s - last_s)
            self.session.remove_object(track)
        self._lives = TrackLives(rules)
        if self._recognition is not None:
            self._recognition.identities.forget_all()  # who is who after it, the pool may tell

    def _judge_pace(self, number: int, pause_s: float) -> None:
        """Warn once where pauses end the tracks of one frame after the other, as in a time-lapse."""
        if self._paused == number - 1 and not self._is_slow:
            self._is_slow = True
            logger.warning(
                "frame %d: all tracks end with every frame, because the frames lie more than retirement.pause_s "
                "(%g s) apart: no identity goes on. Raise it, or take a faster camera",
                number, pause_s,
            )  # fmt: skip
        self._paused = number

    def _retire(self, number: int) -> set[int]:
        """End the tracks whose time has come; return them, and those that go on but are not to be shown."""
        if self._lives is None or self.model is None:
            return set()
        ended = self._lives.observe(self.session.obj_ids, self.model.evidence)
        for track, reason in ended.items():
            logger.info("frame %d: track %s ends, %s", number, self._called(track), reason)
            self.session.remove_object(track)
        return self._lives.hidden() | ended.keys()

    def _shown_as(self, track: int) -> int | None:
        """Return the id under which a track is shown, None for one that never was."""
        return track if self._recognition is None else self._recognition.identities.known_as(track)

    def _called(self, track: int) -> str:
        """Return that id for the log."""
        shown = self._shown_as(track)
        return "(never shown)" if shown is None else str(shown)

    def _begin_recognition(self) -> Recognition | None:
        rules = self.policy.appearance
        return None if self.embedder is None or rules is None else Recognition(self.embedder, rules)


def _common_dtype(model: Any) -> torch.dtype:
    found = {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()}
    if len(found) != 1:
        names = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in found))
        raise ConfigError("model", f"has weights in {names}", "one dtype", "Cast teacher and student to the same.")
    dtype: torch.dtype = found.pop()
    return dtype


def _check_prompt(model: Any, prompt: PromptEmbedding) -> None:
    width = model.config.detector_config.detr_encoder_config.hidden_size
    if prompt.embedding.shape[-1] != width:
        raise ConfigError(
            f"prompt {prompt.word!r}",
            f"is of width {prompt.embedding.shape[-1]}",
            f"the model's {width}",
            "Use the prompts stored beside this model.",
        )
