"""What does an animal do: heads over an embedder's features, for one frame or for a short time.

`FrameHead` is a perceptron on the features of one frame. `TemporalHead` is a small transformer over the features and
the motion around it: walk and standing look alike in one frame. `BranchedHead` adds up two of these, one of which sees
no pictures.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from datamodules.behaviour_windows import Window
from datamodules.files import atomic_directory, write_json
from datamodules.motion import MOTION
from pl_distill.assets import shipped_models
from pl_distill.errors import CheckpointError, ConfigError
from pl_distill.models.checkpoints import load_strictly
from pl_distill.models.tensor_hash import tensors_sha256

MODEL_TYPE = "behaviour_head"
PEN_BEHAVIOUR = "pen_behaviour"
WEIGHTS, CONFIG = "model.safetensors", "config.json"


class FrameHead(nn.Module):
    """Perceptron with dropout and GELU on the features of the moment itself.

    Args:
        features: Length of an embedder's features.
        classes: How many behaviours.
        window: Of which only the moment is looked at.
        hidden: Width.
        dropout: Part of the hidden values that training sets to 0.
        feature_dropout: The same of the features.
    """

    def __init__(
        self,
        features: int,
        classes: int,
        window: Window,
        hidden: int = 192,
        dropout: float = 0.2,
        feature_dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.window = window
        self.layers = nn.Sequential(
            nn.LayerNorm(features),
            nn.Dropout(feature_dropout),
            nn.Linear(features, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, classes),
        )

    def forward(self, features: Tensor, motion: Tensor, present: Tensor) -> Tensor:
        """Map windows to logits.

        Args:
            features: Shape (B, T, F).
            motion: Shape (B, T, len(MOTION)); not looked at.
            present: Shape (B, T), bool; False where the animal was not seen.

        Returns:
            Shape (B, classes).
        """
        logits: Tensor = self.layers(features[:, self.window.past])
        return logits


class TemporalHead(nn.Module):
    """Transformer over a window of features and motion; the moment's token is classified.

    Args:
        features: Length of an embedder's features.
        classes: How many behaviours.
        window: What is looked at.
        hidden: Width of a token.
        layers: Of the transformer.
        heads: Of its attention.
        dropout: Part of the values that training sets to 0.
        feature_dropout: The same of the features.
        pictures: Whether the features are looked at; without them it is the baseline of geometry and motion.
    """

    def __init__(
        self,
        features: int,
        classes: int,
        window: Window,
        hidden: int = 64,
        layers: int = 2,
        heads: int = 4,
        dropout: float = 0.2,
        feature_dropout: float = 0.5,
        pictures: bool = True,
    ) -> None:
        super().__init__()
        self.window = window
        self.pictures = pictures
        self.see: nn.Module | None = None
        if pictures:
            self.see = nn.Sequential(nn.LayerNorm(features), nn.Dropout(feature_dropout), nn.Linear(features, hidden))
        self.move = nn.Linear(2 * len(MOTION), hidden)  # values, and how they differ from the moment's
        self.place = nn.Parameter(0.02 * torch.randn(window.length, hidden))
        layer = nn.TransformerEncoderLayer(
            hidden, heads, 2 * hidden, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.out = nn.Sequential(nn.LayerNorm(hidden), nn.Dropout(dropout), nn.Linear(hidden, classes))

    def forward(self, features: Tensor, motion: Tensor, present: Tensor) -> Tensor:
        """See `FrameHead`; the moment itself is always present."""
        now = self.window.past
        tokens = self.place + self.move(torch.cat([motion, motion - motion[:, now : now + 1]], -1))
        if self.see is not None:
            tokens = tokens + self.see(features)
        hidden = self.layers(tokens, src_key_padding_mask=~present)
        logits: Tensor = self.out(hidden[:, now])
        return logits


class BranchedHead(nn.Module):
    """Two temporal heads whose logits are added: one sees boxes and masks alone, the other the pictures as well.

    Each also has a loss of its own (`BehaviourModule`), so that what masks tell is learnt where pictures tell more.

    Args:
        features: Length of an embedder's features.
        classes: How many behaviours.
        window: What is looked at.
        hidden: Width of a token, in each branch.
        layers: Of each transformer.
        heads: Of its attention.
        dropout: Part of the values that training sets to 0.
        feature_dropout: The same of the features.
    """

    def __init__(
        self,
        features: int,
        classes: int,
        window: Window,
        hidden: int = 64,
        layers: int = 2,
        heads: int = 4,
        dropout: float = 0.2,
        feature_dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.window = window
        self.blind, self.seeing = (
            TemporalHead(features, classes, window, hidden, layers, heads, dropout, feature_dropout, pictures)
            for pictures in (False, True)
        )

    def branches(self, features: Tensor, motion: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of the branch without and of the one with pictures, (B, classes) each; see `FrameHead`."""
        return self.blind(features, motion, present), self.seeing(features, motion, present)

    def forward(self, features: Tensor, motion: Tensor, present: Tensor) -> Tensor:
        """See `FrameHead`."""
        blind, seeing = self.branches(features, motion, present)
        return blind + seeing


HeadKind = Literal["frame", "temporal", "branched"]
HEADS: dict[HeadKind, type[FrameHead] | type[TemporalHead] | type[BranchedHead]] = {
    "frame": FrameHead,
    "temporal": TemporalHead,
    "branched": BranchedHead,
}


@dataclass(frozen=True)
class BehaviourModel:
    """A trained head with what is needed to use it.

    Args:
        head: The network, in eval mode.
        kind: Which it is.
        classes: Names of the behaviours, in the order of the logits.
        window: What it looks at.
        fps: Observations per second that it was trained on.
        embedder: Identity of the embedder whose features it was trained on.
        labels: The class of every raw label of its training, None for those that were dropped.
        arguments: What builds the head again, beside its window.
    """

    head: nn.Module
    kind: HeadKind
    classes: tuple[str, ...]
    window: Window
    fps: float
    embedder: str
    labels: Mapping[str, str | None] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def class_of(self, raw: str) -> str | None:
        """Return the class of a raw label, None for one that was dropped.

        A head that remembers no labels knows those that are called like a class.
        """
        return self.labels.get(raw) if self.labels else raw if raw in self.classes else None

    @cached_property
    def identity(self) -> str:
        """SHA-256 over everything that its answers depend on."""
        built = sorted(self.arguments.items())
        said = (self.kind, built, self.classes, self.window.past, self.window.future, self.fps, self.embedder)
        return tensors_sha256(sorted(self.head.state_dict().items()), repr(said).encode())


def save_behaviour(folder: Path, model: BehaviourModel) -> None:
    """Write a head in float16 as `load_behaviour` reads it.

    Args:
        folder: Is made, or replaced as a whole: new weights under an old description would name everything wrong.
        model: The head.
    """
    weights = {name: tensor.detach().cpu().half().contiguous() for name, tensor in model.head.state_dict().items()}
    content = {
        "model_type": MODEL_TYPE,
        "kind": model.kind,
        "arguments": dict(model.arguments),
        "window": asdict(model.window),
        "classes": list(model.classes),
        "labels": dict(model.labels),
        "fps": model.fps,
        "embedder": model.embedder,
    }
    with atomic_directory(folder, replace=True) as partial:
        save_file(weights, partial / WEIGHTS, metadata={"format": "pt"})
        write_json(partial / CONFIG, content)


def load_behaviour(source: str | Path = PEN_BEHAVIOUR) -> BehaviourModel:
    """Load a head, in float32 and eval mode.

    Args:
        source: A folder, or a shipped one (``pen_behaviour``).

    Raises:
        CheckpointError: There is none, it is damaged, or its weights do not fit its description.
    """
    shipped = shipped_models(MODEL_TYPE)
    folder = Path(source) if Path(source).is_dir() else shipped.get(str(source), Path(source))
    fix = "Give the folder that a training of behaviour/*.yaml exported, or a shipped one: " + (
        ", ".join(shipped) or "none"
    )
    try:
        content = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        weights = {name: tensor.float() for name, tensor in load_file(folder / WEIGHTS).items()}
        if content.get("model_type") != MODEL_TYPE:
            raise CheckpointError(folder / CONFIG, f"describes {content.get('model_type')!r}", repr(MODEL_TYPE), fix)
        window, arguments = Window(**content["window"]), dict(content["arguments"])
        model = BehaviourModel(
            HEADS[content["kind"]](window=window, **arguments).eval(),
            content["kind"],
            tuple(content["classes"]),
            window,
            float(content["fps"]),
            str(content["embedder"]),
            dict(content.get("labels", {})),
            arguments,
        )
        if len(model.classes) != arguments["classes"]:
            raise ValueError(f"{len(model.classes)} names for {arguments['classes']} classes")
    except CheckpointError:
        raise
    except Exception as error:  # nothing but these values has come in, and torch checks them each in its own way
        reason = f"{type(error).__name__}: {error}"
        raise CheckpointError(folder, f"cannot be read ({reason})", "a behaviour head", fix) from error
    load_strictly(model.head, weights, folder / WEIGHTS)
    return model


def require_embedder(model: BehaviourModel, identity: str) -> None:
    """See that a head reads the features that it was trained on.

    Args:
        model: The head.
        identity: Of the embedder that describes the animals for it.

    Raises:
        ConfigError: It was trained on another embedder's.
    """
    if model.embedder != identity:
        raise ConfigError(
            "behaviour",
            f"was trained on the features of another embedder ({model.embedder[:12]})",
            f"this one ({identity[:12]})",
            "Name its embedder, or train a head on this one: `pl-distill embed`, then behaviour/pen.yaml.",
        )
