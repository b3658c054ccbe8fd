"""One model that names findings, writes reports, answers questions, and matches films with texts.

The four tasks are fine-tuned on one body, each with its own objective, examples and evaluation, as `classify`,
`generate`, `vqa` and `retrieve` define them. A row of a batch has an example of each, of its own film, and the loss is
the sum of the four losses, weighted by `config.weights`. So every step sees all tasks, and batches have one shape.
Reports are written under s2s as ever; the others take the mask `config.model.attention`.

Films with reports are those of `config.data.path`, questions those of `config.data.questions`. Where the two have
subjects in common, one that either data set holds out is not trained on in the other.

Metrics have the names of the single tasks, with the task after the first "/": `eval/findings/auroc_macro`,
`test/report/bleu4`, `baseline/match/chance/i2r/mrr`. The best checkpoint is that of the highest `eval/mean`, the mean
of `evaluation.SCORES`. `--eval_only` writes all of them to `metrics.json`, and every task's own files to a folder of
its name (`report/predictions.jsonl`).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from medvill_jax.batch import joined
from medvill_jax.cluster.workdir import Workdir
from medvill_jax.errors import ConfigError
from medvill_jax.models.finetuned import HeadsConfig
from medvill_jax.tasks import classify, generate, retrieve, runner, setup, vqa
from medvill_jax.tasks.data import TrainRecords
from medvill_jax.tasks.multitask.data import Films, Rows, question_config
from medvill_jax.tasks.multitask.evaluation import Multitask
from medvill_jax.tasks.multitask.objective import sum_of
from medvill_jax.tasks.multitask.report import closing_lines
from medvill_jax.tasks.network import build_network
from medvill_jax.tasks.parts import Parts
from medvill_jax.trees import Tree


def build(config: setup.Config, workdir: Workdir) -> Parts:
    """All four tasks; see the module's docstring."""
    _check(config)
    films = Films(config)
    configs = dict.fromkeys(("findings", "report", "ask", "match"), config) | {"ask": question_config(config)}
    folders = {name: Workdir.of(workdir).part(name) for name in configs}
    names = classify.class_names(config)
    answers = vqa.vocabulary(configs["ask"], folders["ask"], films.questions)
    heads = HeadsConfig(classes=len(names), answers=len(answers), contrast=config.contrast.width, matches=True)
    network = build_network(config, films.vocabulary, heads=heads)
    parts = {
        "findings": classify.compose(config, folders["findings"], films, network, names),
        "report": generate.compose(config, folders["report"], films, network),
        "ask": vqa.compose(configs["ask"], folders["ask"], films.questions, network, answers),
        "match": retrieve.compose(config, folders["match"], films, network),
    }
    trained = {name: part.train_records for name, part in parts.items() if part.train_records is not None}
    for data, task in ((films, "report"), (films.questions, "ask")):
        if isinstance(texts := trained.get(task), TrainRecords):
            data.measure_texts(texts)
    return Parts(
        stage="multitask",
        data=films,
        network=network,
        spec=joined({name: part.spec for name, part in parts.items()}),
        objective=sum_of({name: part.objective for name, part in parts.items()}, config.weights),
        train_records=Rows(trained, config.seed) if trained else None,
        evaluator=functools.partial(Multitask, parts=parts, configs=configs, folders=folders),
        closing_lines=functools.partial(closing_lines, parts),
        shared_in_batch=parts["match"].shared_in_batch,
        files={f"{name}/{file}": content for name, part in parts.items() for file, content in part.files.items()},
        export_extra=functools.partial(_extra, parts),
        plan=parts["match"].plan,
    )


def _check(config: setup.Config) -> None:
    """Raises `ConfigError` for fields that do not fit together."""
    setup.require_one_view(config)
    if config.fusion != "joint":
        raise ConfigError(f"fusion={config.fusion!r}: the tasks share one body; set fusion=joint")
    for task in (classify, vqa, retrieve):
        task.check(config)
    if wrong := [name for name, weight in config.weights.items() if not weight > 0]:
        raise ConfigError(f"weights.{wrong[0]}={config.weights[wrong[0]]}: the weight of a task must be above 0")


def _extra(parts: Mapping[str, Parts], evaluator: Multitask, state: Tree) -> dict[str, Any]:
    """What the export records for every task; the readers of an export know it by the same names."""
    extra: dict[str, Any] = {}
    for name, part in parts.items():
        for key, value in part.export_extra(evaluator.of[name], state).items():
            if extra.setdefault(key, value) != value:
                raise ValueError(f"two tasks record {key}, as {extra[key]!r} and as {value!r}")
    return extra


Task = runner.Task(build)
