"""Lightning's own verbs: a recipe in YAML names module, data and trainer by class path.

What differs from plain LightningCLI: errors are `ConfigError`, a rerun may overwrite its saved config but not before it
trains, the recipe decides about the model and not a checkpoint, and `--config` finds shipped recipes by name.
"""

import logging
import sys
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar, NoReturn, cast

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.strategies import DeepSpeedStrategy
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher
from lightning.pytorch.trainer.states import TrainerFn

from datamodules.errors import UserError
from datamodules.files import await_recovered, recover_directories
from pl_distill.checkpoint_io import WholeCheckpointIO
from pl_distill.commands.finite_weights import FiniteWeights
from pl_distill.commands.one_fit import alone_in
from pl_distill.commands.parsing import resolve_recipes
from pl_distill.commands.recipe_help import help_of_recipes
from pl_distill.commands.refusals import explain
from pl_distill.commands.same_checkpoint import SameCheckpoint
from pl_distill.commands.step_seed import StepSeed
from pl_distill.errors import CheckpointError, ConfigError
from pl_distill.models.checkpoints import find_deepspeed_states, read_checkpoint
from pl_distill.modules.distillation import DistillationModule
from pl_distill.modules.exported import ExportedModule, check_export

_MORE = (
    "What a recipe can be told beside the trainer's options: the same with --help at its end explains it, and with "
    "--print_config it shows every value."
)
EXAMPLES = {
    "fit": "Distil a student from cached features. Example: "
    "pl-distill fit --config distill/pen.yaml --config trainer/cpu.yaml --data.shards SHARDS --data.cache CACHE "
    "--model.teacher TEACHER; go on after a kill with --ckpt_path last. " + _MORE,
    "validate": "Feature metrics of a checkpoint. Example: "
    "pl-distill validate --config runs/x/config.yaml --ckpt_path last. " + _MORE,
    "predict": "Run the teacher once and cache its features. Example: "
    "pl-distill predict --config cache/pen.yaml --model.teacher TEACHER --data.shards SHARDS; "
    "--data.codec int8 takes half of the space, --data.views.count 4 adds crops and mirror images. " + _MORE,
}


class RecipeParser(LightningArgumentParser):
    """Raises `ConfigError` for arguments that it does not take."""

    command: ClassVar[str] = "pl-distill"  # what was typed: the parser of all verbs is asked last

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})  # a later option may share the beginning

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Refuse the arguments; a parser of a part leaves that to the whole."""
        if not self.exit_on_error:
            super().error(message, ex)
        raise explain(self.command, message, self._option_string_actions)


class SaveConfigOfTraining(SaveConfigCallback):
    """Saves config.yaml when training begins: a run that cannot start leaves the one that is there."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Wait until the data are open and the checkpoint is read."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save."""
        super().setup(trainer, pl_module, "fit")


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

    def _parse_ckpt_path(self) -> None:
        """Leave the recipe as it is; Lightning would lay a checkpoint's hyperparameters over it, without a word."""

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the trainer: checkpoints are whole, of finite weights, or absent; every batch has its seed.

        config.yaml is saved before other callbacks, which read it.

        Raises:
            ConfigError: Its options do not go together, or not with this machine.
        """
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except (MisconfigurationException, ValueError) as error:
            options = "--trainer.accelerator cpu --trainer.strategy auto"  # a trainer file would replace the callbacks
            without_gpu = options if isinstance(self.model, ExportedModule) else "--config trainer/cpu.yaml"
            raise ConfigError(
                "trainer",
                f"cannot be built ({' '.join(str(error).split()).rstrip('.')})",
                "options that fit together and this machine",
                f"Correct them; {without_gpu} needs no GPU.",
            ) from error
        environment = trainer._accelerator_connector.cluster_environment
        if isinstance(environment, SLURMEnvironment):
            # Else Lightning would save inside the handler of SIGUSR1 (1 of 3 trials hung) and ask for a requeue; and
            # the next run in this folder, of whatever model, would take its weights from there.
            environment.auto_requeue = False
            if found := next(Path(trainer.default_root_dir).glob("hpc_ckpt_*"), None):
                raise ConfigError(
                    found, "would be loaded in place of this run's weights", "none, in a job of SLURM",
                    "Lightning wrote it when an earlier job was signalled: delete it.",
                )  # fmt: skip
        if getattr(trainer, "_val_check_time_interval", None) is not None and trainer.world_size > 1:
            raise ConfigError(
                "trainer.val_check_interval", "is a time", "a number of steps, where there are several processes",
                "Give steps: each process looks at its own clock, and one would validate while others train.",
            )  # fmt: skip
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:  # DeepSpeed writes directories of its own
            trainer.strategy.checkpoint_io = WholeCheckpointIO()
        callbacks: list[Callback] = cast(Any, trainer).callbacks
        callbacks.sort(key=lambda callback: not isinstance(callback, SaveConfigCallback))
        callbacks.insert(0, FiniteWeights())  # before any that writes weights
        self._same_checkpoint = SameCheckpoint()
        callbacks += [self._same_checkpoint, StepSeed()]
        return trainer

    def _run_subcommand(self, subcommand: str) -> None:
        """Refuse a training that nobody would write, and let one at a time write in a folder.

        The first process answers for the others.

        Raises:
            ConfigError: Another one goes on there.
        """
        if subcommand == TrainerFn.FITTING:
            check_export(self.model, self.trainer)
        is_writer = subcommand == TrainerFn.FITTING and self.trainer.is_global_zero
        with alone_in(Path(self.trainer.default_root_dir)) if is_writer else nullcontext():
            super()._run_subcommand(subcommand)

    def before_fit(self) -> None:
        """Refuse a checkpoint that is not there or damaged.

        ``last`` may be missing before a first run. One that was being replaced when a run was killed is put back
        first: ``last`` looks for it. What a kill has left of a file that was being written goes.

        Raises:
            ConfigError: The folder holds a training that this one neither goes on with nor should write over.
        """
        checkpoints = Path(self.trainer.default_root_dir) / "checkpoints"
        if not self.trainer.is_global_zero:
            await_recovered(checkpoints)  # the first does it once no other training is at work there
        else:
            recover_directories(checkpoints)
            for partial in checkpoints.glob(".*.partial-*"):
                partial.unlink(missing_ok=True)
        last = checkpoints / "last.ckpt"
        if self.config["fit"].ckpt_path is None and last.exists():
            raise ConfigError(
                f"trainer.default_root_dir {self.trainer.default_root_dir}", f"holds a training already ({last})",
                "a folder for each", "Give --ckpt_path last to go on with it, or another --trainer.default_root_dir.",
            )  # fmt: skip
        self._same_checkpoint.found = self._check_checkpoint(TrainerFn.FITTING)

    def before_validate(self) -> None:
        """Refuse a checkpoint that is not there or damaged, and to validate without one or a model with weights.

        A student's scores are printed, and not logged: they would lie at step 0 of the curves of its training. Other
        modules have names or steps of their own for them.
        """
        if isinstance(self.model, DistillationModule):
            self.trainer.loggers = []
        if self.config["validate"].ckpt_path is None and getattr(self.model, "weights", None) is not None:
            return
        strategy = self.trainer.strategy
        if isinstance(strategy, DeepSpeedStrategy) and strategy.zero_stage_3:
            raise CheckpointError(
                f"--ckpt_path {self.config['validate'].ckpt_path}",
                "is to be validated with ZeRO-3, which DeepSpeed loads into a training only",
                "a run of another strategy",
                "`fit` validates on the way and writes val/ into its curves; `pl-distill convert` makes a student of "
                "this checkpoint, which `pl-distill evaluate` scores.",
            )
        if self._check_checkpoint(TrainerFn.VALIDATING) is None:
            given = self.config["validate"].ckpt_path
            raise CheckpointError(
                f"--ckpt_path {given}" if given else "--ckpt_path",
                f"finds no checkpoint below {self.trainer.default_root_dir}" if given else "is missing",
                "the checkpoint to validate: its path, or last for the newest of the run",
                "Give its path, or with --trainer.default_root_dir the folder of the run.",
            )

    def after_predict(self) -> None:
        """Wait for the processes that Lightning started: shares of a cache end at different times.

        Raises:
            UserError: One of them has failed.
        """
        launcher = self.trainer.strategy.launcher
        if not isinstance(launcher, _SubprocessScriptLauncher):
            return
        # none where another program has started the ranks, and in those that Lightning started
        for rank, code in [(rank, process.wait()) for rank, process in enumerate(launcher.procs, start=1)]:
            if code != 0:
                raise UserError(
                    "predict",
                    f"process {rank} of this machine ended with exit code {code}",
                    "0 of every process",
                    "Its own error stands above. The same command goes on with the shards that are missing.",
                )

    def _check_checkpoint(self, verb: TrainerFn) -> Path | None:
        """Return the checkpoint that Lightning is about to read, None without one."""
        given = self.config[str(self.subcommand)].ckpt_path
        if given is None:
            return None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Lightning asks again, and warns then
                chosen = self.trainer._checkpoint_connector._parse_ckpt_path(
                    verb, given, model_provided=True, model_connected=True
                )
        except ValueError as error:
            raise ConfigError(
                f"--ckpt_path {given}", "names no checkpoint", "a path, or last", f"Lightning says: {error}"
            ) from error
        if chosen is None:
            return None
        path = Path(chosen)
        if not path.exists():
            raise CheckpointError(path, "does not exist", "a checkpoint of `pl-distill fit`", "Check --ckpt_path.")
        by_deepspeed = isinstance(self.trainer.strategy, DeepSpeedStrategy)
        if by_deepspeed != path.is_dir():
            kinds = ("a file", "a directory, as DeepSpeed writes it")
            raise CheckpointError(
                path,
                f"is {kinds[path.is_dir()]}",
                f"{kinds[by_deepspeed]}, for this trainer.strategy",
                "Use the trainer file that the run began with.",
            )
        _ = find_deepspeed_states(path) if by_deepspeed else read_checkpoint(path)
        return path

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


class _BuildingCLI(RecipeCLI):
    """Builds module, data and trainer, and starts nothing."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Stay as built."""


def count_devices(args: Sequence[str]) -> int:
    """Return on how many devices, of all nodes, a verb would run; nothing is run.

    Args:
        args: The verb and its options, as on the command line.

    Raises:
        ConfigError: The recipe cannot be built here.
    """
    disabled = logging.root.manager.disable
    logging.disable(logging.INFO)  # what Lightning says about the machine
    try:
        trainer = run_lightning(args, _BuildingCLI).trainer
    finally:
        logging.disable(disabled)
    return trainer.num_devices * trainer.num_nodes


def run_lightning(args: Sequence[str], kind: type[RecipeCLI] = RecipeCLI) -> RecipeCLI:
    """Run one of Lightning's verbs.

    Args:
        args: The verb and its options, as on the command line.
        kind: Of CLI.

    Returns:
        The finished CLI object, with `model`, `datamodule` and `trainer`.

    Raises:
        SystemExit: Help was asked for, and is printed.
    """
    _hush()
    if (text := help_of_recipes(args)) is not None:
        print(text)
        sys.exit(0)

    class Parser(RecipeParser):
        command = f"pl-distill {args[0]}"

    return kind(
        LightningModule,
        LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        seed_everything_default=0,
        # A cache's manifest says how it was made, and `validate` must not replace the configuration of its fit.
        save_config_callback=SaveConfigOfTraining if args[0] == "fit" else None,
        save_config_kwargs={"overwrite": True},  # a resumed or requeued run finds its own file
        parser_class=Parser,
        parser_kwargs={verb: {"description": example} for verb, example in EXAMPLES.items()},
        auto_configure_optimizers=False,
        args=resolve_recipes(args),
    )


def _hush() -> None:
    """Drop what Lightning says to advertise other packages or to its own developers."""
    for package in ("fabric", "pytorch"):  # either may be the one that is spoken through
        logging.getLogger(f"lightning.{package}.utilities.rank_zero").addFilter(_is_no_tip)
    warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)`", category=FutureWarning)


def _is_no_tip(record: logging.LogRecord) -> bool:
    return "Tip: For seamless" not in record.getMessage()
