"""The short `--help` of fit, validate and test; `--help-all` prints Lightning's list. Imports no torch."""

_USAGE = "usage: focal-lab {name} --config FILE [--config FILE ...] [--GROUP.OPTION=VALUE ...]\n\n"
_FIT = """Train one experiment: a YAML file with the sections model, data and trainer, any value of which can
also be set on the command line. Later files and options override earlier ones.

examples:
  focal-lab fit --config experiments/digits/classification.yaml
  focal-lab fit --config experiments/imagenet/classification.yaml --data.root=/data/imagenet --dry-run

options:
  -c, --config FILE                  an experiment, or the settings that differ from the previous one
  --dry-run                          build everything, take a few steps, print the time and memory needed
  --ckpt_path FILE                   resume from a checkpoint; `last` for the newest in the folder
  --seed_everything N                seed of weights, data and augmentation (default: 0)
  --model.backbone NAME              a timm model, such as focal_tiny or resnet50
  --model.backbone_options.NAME=X    an option of that model, such as window_size
  --model.backbone_checkpoint FILE   weights to start from
  --model.lr RATE                    highest learning rate
  --data.root FOLDER                 the data set
  --data.batch_size N                images per batch and device
  --trainer.max_epochs N             length of the training
  --trainer.devices N                number of GPUs or processes
  --trainer.precision P              32-true, bf16-mixed or 16-mixed
  --trainer.default_root_dir FOLDER  where logs and checkpoints go
"""
_EVALUATE = """Evaluate a checkpoint on the {split} split. The model's options come from the checkpoint; those
of the command line override them.

examples:
  focal-lab {name} --config experiments/digits/classification.yaml --ckpt_path best.ckpt
  focal-lab {name} --config runs/3f2a91c04d7e/config.yaml --ckpt_path last.ckpt

options:
  -c, --config FILE                  the experiment, or the settings that differ from the previous one
  --ckpt_path FILE                   the checkpoint; `last` for the newest in the folder
  --model.backbone_checkpoint FILE   weights of a classifier in another format, instead of a checkpoint
  --data.root FOLDER                 the data set
  --data.batch_size N                images per batch and device
  --trainer.devices N                number of GPUs or processes
  {limit:<35}evaluate the first N batches only
"""
_ALL = """  --print_config                     print the configuration with all defaults and exit
  --model.help CLASS                 print the options of a model, such as focal_lab.tasks.Classification
  --data.help CLASS                  print the options of a data module, such as focal_lab.data.CocoDataModule
  -h, --help                         print this page
  --help-all                         print all options
"""
_PAGES = {
    "fit": _FIT,
    "validate": _EVALUATE.format(name="validate", split="validation", limit="--trainer.limit_val_batches N"),
    "test": _EVALUATE.format(name="test", split="test", limit="--trainer.limit_test_batches N"),
}


def answer_help(subcommand: str, argv: list[str]) -> list[str]:
    """Print the page of a subcommand and exit if --help is given; else the arguments for Lightning.

    Raises:
        SystemExit: the page is printed.
    """
    if subcommand in _PAGES and {"-h", "--help"} & set(argv):
        print(_USAGE.format(name=subcommand) + _PAGES[subcommand] + _ALL, end="")
        raise SystemExit(0)
    return ["--help" if argument == "--help-all" else argument for argument in argv]
