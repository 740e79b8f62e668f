"""Lightning's own verbs: a recipe in YAML names module, data and trainer by class path.

What differs from plain LightningCLI: errors are `ConfigError`, a rerun may overwrite its saved config, and `--config`
finds shipped recipes by name.
"""

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, cast

from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback

from datamodules.errors import UserError
from pl_distill.checkpoint_io import recover_directories
from pl_distill.commands.parsing import refuse, resolve_recipes

EXAMPLES = {
    "fit": "Distil a student from cached features. Example: "
    "pl-distill fit --config distill/pen.yaml --config trainer/cpu.yaml --data.shards SHARDS --data.cache CACHE "
    "--model.teacher TEACHER; go on after a kill with --ckpt_path last",
    "validate": "Feature metrics of a checkpoint. Example: "
    "pl-distill validate --config runs/x/config.yaml --ckpt_path last",
    "predict": "Run the teacher once and cache its features. Example: "
    "pl-distill predict --config cache/pen.yaml --model.teacher TEACHER --data.shards SHARDS; "
    "--data.codec int8 takes half of the space, --data.views.count 4 adds crops and mirror images",
}


class RecipeParser(LightningArgumentParser):
    """Raises `ConfigError` for arguments that it does not take."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Refuse the arguments."""
        refuse(self, message)


class RecipeCLI(LightningCLI):
    """LightningCLI for recipes that name their classes."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Offer the verbs that our modules answer; `test` scores tracks and is the verb `evaluate`."""
        return {verb: arguments for verb, arguments in LightningCLI.subcommands().items() if verb in EXAMPLES}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Let the logger write into the run's folder, so that one option moves events and checkpoints together."""
        parser.link_arguments("trainer.default_root_dir", "trainer.logger.init_args.save_dir")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse `args`, without Lightning's warning that `sys.argv` holds words too: ours are taken from there."""
        self.config = parser.parse_args(cast(Sequence[str], args))

    def before_fit(self) -> None:
        """Put back a checkpoint that was being replaced when a run was killed: `--ckpt_path last` looks for it now."""
        recover_directories(Path(self.trainer.default_root_dir) / "checkpoints")

    def instantiate_classes(self) -> None:
        """Build module, data and trainer; a `UserError` of a constructor comes out as it was raised.

        jsonargparse wraps whatever a constructor raises into a ValueError that quotes the whole configuration.
        """
        try:
            super().instantiate_classes()
        except ValueError as error:
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, UserError):
                cause = cause.__cause__ or cause.__context__
            raise cause or error from None


def run_lightning(args: Sequence[str]) -> RecipeCLI:
    """Run one of Lightning's verbs.

    Args:
        args: The verb and its options, as on the command line.

    Returns:
        The finished CLI object, with `model`, `datamodule` and `trainer`.
    """
    _hush()
    return RecipeCLI(
        LightningModule,
        LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        seed_everything_default=0,
        # A cache's manifest says how it was made, and `validate` must not replace the configuration of its fit.
        save_config_callback=SaveConfigCallback if args[0] == "fit" else None,
        save_config_kwargs={"overwrite": True},  # a resumed or requeued run finds its own file
        parser_class=RecipeParser,
        parser_kwargs={verb: {"description": example} for verb, example in EXAMPLES.items()},
        auto_configure_optimizers=False,
        args=resolve_recipes(args),
    )


def _hush() -> None:
    """Drop what Lightning says to advertise other packages or to its own developers."""
    logging.getLogger("lightning.fabric.utilities.rank_zero").addFilter(_is_no_tip)
    warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)`", category=FutureWarning)


def _is_no_tip(record: logging.LogRecord) -> bool:
    return "Tip: For seamless" not in record.getMessage()
