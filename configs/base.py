"""The configuration fields that all tasks share, and their values in the variants `small` and `phantom`."""

from typing import Any

from ml_collections import ConfigDict

VARIANTS = ("", "small", "phantom")


def check_variant(file: str, variant: str, *more: str) -> None:
    """Raises `ValueError` if `variant` is not a usual one, nor one of `more`; `file` is the configuration's path."""
    known = (*VARIANTS[1:], *more)
    if variant and variant not in known:
        raise ValueError(f"{file} has no variant {variant!r}; there are {', '.join(known)}")


def base() -> ConfigDict:
    """The shared fields at the sizes of the published MedViLL. The names of fields do not change between versions."""
    config: Any = ConfigDict()
    config.seed = 0  # of all randomness: initialisation, shuffling, masking, dropout
    config.epochs = 0.0  # passes over the training records
    config.steps = 0  # optimizer steps of the run; 0: as many as `epochs` need with this batch size
    config.batch_size = 32  # over all devices and hosts
    # Microbatches per step, to fit a large batch into little memory. BatchNorm statistics and in-batch negatives are of
    # one microbatch each, so that with a ResNet, or in retrieval, the step differs slightly from that of a whole batch.
    config.accumulate = 1
    config.remat = ""  # recompute layers for the gradient, to save memory: full, dots, dots_no_batch; "": none
    # Of computation: float32, bfloat16; auto: bfloat16 on TPUs and on GPUs made for it, else float32. Parameters are
    # always float32.
    config.dtype = "auto"

    config.data = ConfigDict()
    config.data.path = ""  # a data set made by `python -m data_prep`
    # Pre-training on several data sets instead of `path`, each with its share of the examples: 'A:0.6,B:0.4'.
    config.data.mixture = ""
    config.data.tokenizer = ""  # vocab.txt, tokenizer folder or Hugging Face name; "": the one stored with the data
    config.data.fraction = 1.0  # share of the training records to use, sampled by the seed
    config.data.holdout = 0.1  # share of the training subjects held out if the data have no validation split
    # Folds of a cross-validation over all records, split by subject; 0: the splits of the data set.
    config.data.folds = 0
    config.data.fold = 0  # the fold for testing, from 0; `holdout` of the subjects of the others are for validation
    config.data.augment = True  # random crops in training
    config.data.crop_scale = (0.8, 1.1)  # area of the crop, relative to the padded square film
    config.data.crop_ratio = (3 / 4, 4 / 3)  # width / height of the crop
    config.data.workers = ConfigDict({"threads": 4, "processes": 0, "buffer": 4})  # per host

    config.model = ConfigDict()
    config.model.attention = "bar"  # bidirectional, s2s, bar, mixed, non_cross
    config.model.image_encoder = "resnet50"  # resnet_tiny, resnet18, resnet50, resnet101, vit_patch16, vit_patch32
    config.model.image_size = 512  # side of the square input, pixels
    config.model.num_cells = 180  # visual tokens of a film sampled in training; 0: the whole grid
    # Films of an example: 1, its own; 2, also another view of the study; 3, also that of the study before. Those that
    # an example lacks are masked. docs/training.md#several-films
    config.model.views = 1
    config.model.s2s_prob = 0.75  # share of seq2seq examples under `mixed`
    config.model.text_len = 253  # word pieces kept of a report
    config.model.hidden_size = 768
    config.model.num_layers = 12
    config.model.num_heads = 12
    config.model.intermediate_size = 3072
    config.model.max_positions = 512
    config.model.dropout = 0.1
    config.model.layer_norm_eps = 1e-12
    config.model.initializer_range = 0.02  # standard deviation of new weights

    config.model.compat = ""  # "upstream": compute as the released code, for its published weights

    # Initial weights of a new run. Every name and shape must fit, except for names that match a regex in `allow`.
    config.init = ConfigDict()
    config.init.bert = ""  # Hugging Face BERT folder or file
    config.init.resnet = ""  # ResNet in torchvision's or Hugging Face's naming
    config.init.checkpoint = ""  # an export, or a MedViLL checkpoint of the original code; instead of the two above
    config.init.allow = ()
    config.init.fresh = ()  # regexes of names to initialise anew although the checkpoint has them

    # Regexes of parameters that are not trained. To freeze the stem and first stage of a pre-trained ResNet, as the
    # released code intended: (r"image_encoder/(embedder|stages/0)/.*",)
    config.freeze = ()

    config.optimizer = ConfigDict()
    config.optimizer.learning_rate = 1e-5
    config.optimizer.schedule = "constant"  # constant, linear, cosine; the latter two end at 0
    config.optimizer.warmup_epochs = 0.0
    config.optimizer.warmup_steps = 0  # 0: `warmup_epochs` counts
    # RULE:BATCH, e.g. sqrt:32, if `learning_rate` is for that batch size and grows with the square root of the batch or
    # with the batch itself (linear:32); "": it is for any batch size.
    config.optimizer.batch_scaling = ""
    config.optimizer.beta1 = 0.9
    config.optimizer.beta2 = 0.999
    config.optimizer.eps = 1e-6
    config.optimizer.weight_decay = 0.0  # not applied to biases and normalisation
    config.optimizer.clip_norm = 0.0  # global gradient norm; 0: no clipping
    # (regex, factor of the learning rate); the first regex that matches the name of a parameter counts.
    config.optimizer.rate_policy = ((r".*", 1.0),)

    # A step is bad if its loss or gradient is not finite, or if its loss is a spike: so many standard deviations above
    # the mean of the accepted steps before it. docs/training.md#bad-steps
    config.bad_steps = ConfigDict()
    # stop: what is not finite ends the run, spikes do not count. skip: a bad step changes nothing but the number of
    # steps. rollback: also, many in a row go back to the last checkpoint, and on with the data after them.
    config.bad_steps.policy = "stop"
    config.bad_steps.spike = 6.0  # 0: only what is not finite is bad
    config.bad_steps.window = 128  # accepted steps of that mean; no loss is a spike before there are as many
    config.bad_steps.in_a_row = 10  # so many bad steps end the run, or go back

    config.ema = ConfigDict()
    # Of exponential averages of the weights, which evaluations and the export then use, e.g. 0.999; 0: none.
    config.ema.decay = 0.0

    config.mesh = ConfigDict()
    config.mesh.fsdp = 1  # devices that share one copy of the parameters; the other axis is data-parallel
    config.mesh.topology = ""  # target hardware of --mode=compile; "": the devices of this run

    config.log = ConfigDict({"every_steps": 50})
    config.log.sinks = ""  # that get the metrics too, with commas between: mlflow, trackio, wandb
    config.eval = ConfigDict()
    config.eval.every_steps = 2000  # and after the last step; 0: no evaluation
    config.eval.every_epochs = 0.0  # the interval in epochs, at most one run; 0: `every_steps` counts
    config.eval.short_runs = False  # also evaluate at the end of a run shorter than the interval
    config.eval.split = "validation"
    config.eval.batch_size = 0  # 0: as in training
    config.eval.max_examples = 0  # evenly spaced over the split; 0: all

    config.checkpoint = ConfigDict()
    config.checkpoint.every_steps = 1000
    config.checkpoint.keep_last = 2
    config.checkpoint.keep_best = 1
    config.checkpoint.metric = "eval/loss"
    config.checkpoint.higher_is_better = False
    return config


def fine_tuning(config: Any, *, epochs: float, batch_size: int, learning_rate: float) -> None:
    """Fine-tuning as published: every visual token, a warm-up, a tenth of the published length, then a linear decay."""
    config.epochs = epochs
    config.batch_size = batch_size
    config.model.num_cells = 0
    config.optimizer.learning_rate = learning_rate
    config.optimizer.schedule = "linear"
    config.optimizer.warmup_epochs = epochs / 10
    config.optimizer.weight_decay = 0.01
    config.eval.every_epochs = 1.0


def small(config: Any) -> None:
    """Changes a configuration to a network for a laptop CPU or one small GPU, with intervals and optimizer to match."""
    config.batch_size = 32
    config.epochs = 0.0
    config.dtype = "float32"
    config.model.image_encoder = "resnet_tiny"
    config.model.image_size = 128
    config.model.num_cells = 0
    config.model.text_len = 62
    config.model.hidden_size = 128
    config.model.num_layers = 4
    config.model.num_heads = 4
    config.model.intermediate_size = 512
    config.model.max_positions = 128
    config.optimizer.learning_rate = 1e-3
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_epochs = 0.0
    config.optimizer.warmup_steps = 50
    config.optimizer.weight_decay = 0.01
    config.optimizer.clip_norm = 1.0
    config.log.every_steps = 10
    config.eval.every_epochs = 0.0
    config.eval.every_steps = 200
    config.eval.short_runs = True
    config.checkpoint.every_steps = 100


def phantom(config: Any) -> None:
    """Changes a `small` configuration to phantom data, which the run makes itself, and a network for them."""
    config.data.phantom = ConfigDict({"studies": 9000, "seed": 0, "image_size": 128, "difficulty": "standard"})
    config.data.crop_ratio = (0.9, 1.1)
    config.model.num_layers = 3
    config.model.text_len = 54
    config.model.dropout = 0.0
    # A network this narrow needs larger weights than BERT's for its first attention to differ from an average.
    config.model.initializer_range = 0.08
    config.optimizer.beta2 = 0.98
    config.eval.every_steps = 500
