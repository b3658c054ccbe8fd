"""Visual question answering (paper section IV; docs/spec.md#vqa): the answers are those of the training questions.

The vocabulary (docs/spec.md#vqa-answers) holds the answers to the questions that are trained on, without those that
`data.holdout` sets aside or `data.fraction` leaves out. The run stores it as `answers.json`, for evaluations and the
export.

The input of the head is the product of the states of [CLS] and of the image block's [SEP], or [CLS] alone
(`config.summary`). `config.targets`: "soft" is binary cross entropy, summed over the vocabulary, and a question whose
answer is outside it has no positive; "hard" is softmax cross entropy. An answer outside the vocabulary counts as wrong.

Held-out metrics while training, `eval/...`: `accuracy`, `accuracy_closed`, `accuracy_open`, every question exactly
once. `--eval_only` answers all of `config.eval.split` and writes `predictions.jsonl`, a row per question, and
`metrics.json`: accuracies as `SPLIT/...`, also by organ and by type of question; `SPLIT/outside_vocabulary`, the share
of questions whose answer is outside the vocabulary; and two baselines, `baseline/majority/...` (the most frequent
training answer to questions of that answer type) and `baseline/question_only/...` (the same model with a black image).
Intervals resample subjects: all questions about a film or a patient together, whichever the data's `subject_id` names.
"""

from __future__ import annotations

import functools
import json

from medvill_jax.batch import vqa_spec
from medvill_jax.cluster.workdir import Workdir
from medvill_jax.data import records
from medvill_jax.data.examples import QuestionRecords
from medvill_jax.data.index import training_answers
from medvill_jax.errors import ConfigError
from medvill_jax.models.finetuned import FUSIONS, SUMMARIES, HeadsConfig
from medvill_jax.tasks import runner, setup
from medvill_jax.tasks.data import Data
from medvill_jax.tasks.network import Network, build_network
from medvill_jax.tasks.parts import Parts
from medvill_jax.tasks.vqa.evaluation import Answering
from medvill_jax.tasks.vqa.objective import TARGETS, answer_loss
from medvill_jax.tasks.vqa.report import closing_lines

# The published number of answers of VQA-RAD, for runs on random arrays.
PUBLISHED_ANSWERS = 458


def build(config: setup.Config, workdir: Workdir) -> Parts:
    """Visual question answering; see the module's docstring."""
    check(config)
    data = Data(config)
    answers = vocabulary(config, workdir, data)
    network = build_network(
        config,
        data.vocabulary,
        heads=HeadsConfig(answers=len(answers), fusion=config.fusion),
        unused=(r"(mlm|itm)/.*",) if config.fusion == "late" else (r"(mlm|itm|pooler)/.*",),
    )
    return compose(config, workdir, data, network, answers)


def check(config: setup.Config) -> None:
    """Raises `ConfigError` for fields that do not fit together."""
    setup.require_one_view(config)
    setup.require_known(config, {"summary": SUMMARIES, "targets": TARGETS, "fusion": FUSIONS})
    setup.require_meeting(config)
    if config.data.folds:
        raise ConfigError("data.folds is not for vqa, whose answers are those of the training split; set data.folds=0")


def compose(config: setup.Config, workdir: Workdir, data: Data, network: Network, answers: tuple[str, ...]) -> Parts:
    """The parts for a network that has a head of the `answers`."""
    records_of = functools.partial(data.records, QuestionRecords, answers=answers)
    answers_json = json.dumps(answers, indent=0, ensure_ascii=False) + "\n"
    return Parts(
        stage="vqa",
        data=data,
        network=network,
        spec=vqa_spec(config.batch_size, image_size=config.model.image_size, text_len=config.model.text_len),
        objective=answer_loss(network, config, len(answers)),
        train_records=None if data.fake else records_of("train", train=True),
        evaluator=functools.partial(
            Answering,
            answers=answers,
            data=data,
            records_of=records_of,
        ),
        closing_lines=functools.partial(closing_lines, config, workdir, len(answers)),
        # Later evaluations of the run need the same answers, also if they set other records aside.
        files={} if data.fake else {records.ANSWERS_FILE: answers_json.encode()},
        export_extra=lambda evaluator, state: {
            "summary": config.summary,
            "fusion": config.fusion,
            "targets": config.targets,
            "answers": list(answers),
        },
    )


def vocabulary(config: setup.Config, workdir: Workdir, data: Data) -> tuple[str, ...]:
    """The answers: those of the workdir, or else those of the training questions."""
    path = workdir / records.ANSWERS_FILE
    if path.is_file():
        return records.read_answers(path)
    if data.fake:
        return tuple(f"answer {number}" for number in range(PUBLISHED_ANSWERS))
    return training_answers(config.data.path, data.splits.rows("train", train=True)[1])


Task = runner.Task(build)
