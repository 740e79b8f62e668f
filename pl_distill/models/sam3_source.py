"""Where SAM 3's files are: a local folder, a shipped model, or a repository on the Hugging Face hub through its cache.

Source: transformers' `cached_file`, which downloads a file once and names the copy. Ours looks first whether the user
meant a folder, so that a typo in a path is not answered by a hub that has never heard of it.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError, safe_open
from transformers.utils import cached_file
from transformers.utils import logging as transformers_logging

from pl_distill.assets import shipped_models
from pl_distill.errors import CheckpointError

WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"


def is_hub_name(name: str) -> bool:
    """Whether a text has the form of a repository's name on the hub, ``owner/name``."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", name) is not None


def check_source(source: str | Path) -> str:
    """Return `source` as transformers wants it; the name of a shipped model becomes its folder.

    Raises:
        CheckpointError: It is neither a folder nor a shipped model, nor has the form of a hub name.
    """
    name = str(source)
    if Path(name).is_dir() or (isinstance(source, str) and is_hub_name(name)):
        return name
    shipped = shipped_models()
    if name in shipped:
        return str(shipped[name])
    raise CheckpointError(
        name,
        "is no folder",
        "a folder with config.json and model.safetensors, a hub name such as facebook/sam3, or a shipped model: "
        + (", ".join(shipped) or "none"),
        "Check the path or the spelling.",
    )


def find_file(source: str | Path, name: str) -> Path | None:
    """Return the local path of one file of `source`, None where `source` has no such file.

    Raises:
        CheckpointError: `source` does not exist or cannot be reached.
    """
    checked = check_source(source)
    try:
        return find_cached(checked, name)
    except OSError as error:
        raise CheckpointError(
            checked,
            f"cannot be read: {str(error).splitlines()[0]}",
            f"its file {name}",
            "Log in with `hf auth login` if the repository is gated, or give a local folder.",
        ) from error


def find_cached(source: str, name: str) -> Path | None:
    """Return the local path of one file of a folder or of a repository of the hub, None where it has no such file.

    Raises:
        OSError: The folder or repository is not there, is gated, or cannot be reached.
    """
    found = cached_file(
        source,
        name,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_gated_repo=True,
        _raise_exceptions_for_connection_errors=True,
    )
    return None if found is None else Path(found)


def weight_files(source: str | Path) -> dict[str, Path]:
    """Map the name of every tensor of `source` to the safetensors file that holds it; reads headers only.

    Raises:
        CheckpointError: No weights are there, or a file is damaged.
    """
    single = find_file(source, WEIGHTS)
    if single is not None:
        paths = [single]
    else:
        index = find_file(source, WEIGHTS_INDEX)
        if index is None:
            raise CheckpointError(
                source, f"has no {WEIGHTS}", "weights as safetensors", "Give the folder that `save_pretrained` wrote."
            )
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(
                index,
                f"is no index of weights ({type(error).__name__}: {error})",
                'JSON with the mapping "weight_map", from tensors to files',
                "Copy or download it again.",
            ) from error
        found_at = {name: find_file(source, name) for name in names}
        paths = [path for path in found_at.values() if path is not None]
        if len(paths) < len(found_at):
            gone = next(name for name, path in found_at.items() if path is None)
            raise CheckpointError(
                index, f"names {gone}, which is not there", "every file of the index", "Copy or download it again."
            )
    found: dict[str, Path] = {}
    for path in paths:
        try:
            with safe_open(path, framework="pt") as file:
                found.update(dict.fromkeys(file.keys(), path))
        except SafetensorError as error:
            raise CheckpointError(
                path, f"is damaged ({error})", "a whole safetensors file", "Copy or download it again."
            ) from error
    return found


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers' bars and its table of keys: where we load, the keys are checked right after."""
    level, bar = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bar:
            transformers_logging.enable_progress_bar()
