"""The console script ``pl-distill``: the first word chooses a verb, and only that verb's modules are imported.

Lightning's verbs take recipes (``--config``); the others are plain functions whose signature is their command line.
"""

import errno
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NamedTuple

from datamodules.errors import UserError
from pl_distill import __version__


class Verb(NamedTuple):
    """Where a verb's functions live: one function, or several that a second word chooses.

    Args:
        summary: A line for the help.
        module: Of pl_distill.commands.
        functions: Names in it; none for Lightning's verbs.
        first: The option whose value may stand first, without the option's name.
    """

    summary: str
    module: str
    functions: tuple[str, ...] = ()
    first: str | None = None


VERBS = {
    "demo": Verb("the whole chain on a drawn pen, in minutes", "demo", ("demo",)),
    "data": Verb("draw a pen, write and verify shards, show a split", "data", ("pen", "shards", "verify", "split")),
    "predict": Verb("run the teacher once and cache its features", "lightning"),
    "cache": Verb("show or verify a feature cache, compare codecs", "cache", ("info", "verify", "codecs")),
    "fit": Verb("train: a student from cached features, a SAM 3, an embedder, a behaviour head", "lightning"),
    "convert": Verb("a checkpoint's student as one safetensors file", "convert", ("convert",)),
    "validate": Verb("feature metrics of a student", "lightning"),
    "evaluate": Verb("stream clips through teacher and student and score the tracks", "evaluate", ("evaluate",)),
    "transfer": Verb("score a model on unseen pens of every domain, one table", "transfer", ("transfer",)),
    "window": Verb("scores and bytes against the pruning window, one table", "window", ("window",)),
    "tune": Verb("scores against the thresholds of a SAM 3, one table", "tune", ("tune",)),
    "release": Verb("write a trained SAM 3 or student in half precision, with its model card", "release", ("release",)),
    "embed": Verb("describe every animal of clips, for behaviour and identity", "embed", ("embed",)),
    "ablate": Verb("train and score students of several losses, one table", "ablate", ("ablate",)),
    "track": Verb("follow the animals of a video or a camera", "track", ("track",), first="--video"),
    "budget": Verb("predict parameters, memory and speed of a recipe's systems, without a GPU", "budget", ("budget",)),
    "export": Verb("a student, embedder or behaviour head as ONNX, checked against the network", "export", ("export",)),
    "package": Verb("write everything that a device needs into one folder", "package", ("package",)),
    "record": Verb(
        "the record of each animal: build, ask, join outcomes, draw",
        "record",
        ("build", "simulate", "query", "associate", "plot"),
    ),
    "reid": Verb("a pool's animals; re-identification over a year", "reid", ("info", "merge", "split", "undo", "year")),
    "report": Verb("one HTML file from results", "report", ("report",)),
}

# What a disk refuses; any other OSError is a defect of ours.
REFUSALS = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EEXIST, errno.ENOTDIR, errno.EISDIR,
    errno.ENAMETOOLONG,
}  # fmt: skip


def usage() -> str:
    """Return the text of ``pl-distill --help``."""
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {name:<{width}}  {verb.summary}" for name, verb in VERBS.items())
    return (
        f"pl-distill {__version__}: distil SAM 3 into a small student and track every animal of a pen with it.\n\n"
        f"usage: pl-distill VERB [options]\n\n{verbs}\n\n"
        "Each verb has help with an example: pl-distill VERB --help\n"
        "--debug shows the traceback of an error.\n\n"
        "example: pl-distill demo --out runs/demo\n"
    )


def run(args: Sequence[str]) -> None:
    """Run one verb.

    Raises:
        UserError: The verb is unknown, or refuses what it was given.
    """
    verb = VERBS.get(args[0])
    if verb is None:
        raise UserError("pl-distill", f"knows no verb {args[0]!r}", f"one of {', '.join(VERBS)}", "See --help.")
    module = import_module(f"pl_distill.commands.{verb.module}")
    if not verb.functions:
        module.run_lightning(args)
        return
    parsing = import_module("pl_distill.commands.parsing")
    functions: dict[str, Any] = {name: getattr(module, name) for name in verb.functions}
    only_one = verb.functions == (args[0],)
    words = list(args[1:])
    if verb.first is not None and words and not words[0].startswith("-"):
        words.insert(0, verb.first)
    parsing.run_function(args[0], functions[args[0]] if only_one else functions, words)


def main(args: Sequence[str] | None = None) -> int:
    """Run the console script.

    Returns:
        The exit code: 0, 1 after an error of the user's, 130 after Ctrl-C.
    """
    words = list(sys.argv[1:] if args is None else args)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    if not words or words[0] in ("--help", "-h", "help"):
        print(usage())
        return 0
    if words[0] == "--version":
        print(__version__)
        return 0
    try:
        run(words)
    except UserError as error:
        if debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        return 1
    except ValueError as error:
        refusal = None if debug else _refusal_of_an_option(error)
        if refusal is None:
            raise
        print(f"error: {refusal}", file=sys.stderr)
        return 1
    except OSError as error:
        if debug or error.errno not in REFUSALS:
            raise
        where = error.filename2 or error.filename or "the disk"
        print(
            f"error: {where}: is refused by the system ({error.strerror}), expected a place to read and write. "
            "Check paths, permissions and free space.",
            file=sys.stderr,
        )
        return 1
    except (KeyboardInterrupt, SystemExit) as error:
        # Lightning shuts its trainer down on Ctrl-C and then leaves with `sys.exit(1)`.
        if isinstance(error, SystemExit) and not isinstance(error.__context__, KeyboardInterrupt):
            raise
        how = " with --ckpt_path last" if words[:1] == ["fit"] else ""
        print(f"\nstopped; run the same command again{how} to go on", file=sys.stderr)
        return 130
    return 0


def _refusal_of_an_option(error: ValueError) -> UserError | None:
    """Find what refused an option's values, if jsonargparse wrapped it: it does where a type has alternatives."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None or not trace.tb_frame.f_globals["__name__"].startswith("jsonargparse"):
        return None
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, UserError):
        cause = cause.__cause__ or cause.__context__
    return cause


if __name__ == "__main__":
    sys.exit(main())
