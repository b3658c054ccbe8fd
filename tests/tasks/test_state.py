"""What a run begins with has the types of what its steps return, or else the step would be compiled twice."""

from pathlib import Path
from types import ModuleType

import jax
import pytest

from configs import classify, generate, multitask, pretrain, retrieve, vqa
from medvill_jax.tasks import classify as classify_task
from medvill_jax.tasks import generate as generate_task
from medvill_jax.tasks import multitask as multitask_task
from medvill_jax.tasks import pretrain as pretrain_task
from medvill_jax.tasks import retrieve as retrieve_task
from medvill_jax.tasks import vqa as vqa_task
from medvill_jax.tasks.data import FAKE
from medvill_jax.trees import flatten
from tests.conftest import TINY_SIZES

TASKS = [
    (pretrain_task, pretrain),
    (classify_task, classify),
    (retrieve_task, retrieve),
    (vqa_task, vqa),
    (generate_task, generate),
    (multitask_task, multitask),
]


@pytest.mark.parametrize(("module", "configs"), TASKS)
def test_no_parameter_is_weakly_typed(module: ModuleType, configs: ModuleType, tmp_path: Path) -> None:
    config = configs.get_config("small")
    config.data.path, config.batch_size = FAKE, 8
    config.model.update(TINY_SIZES, image_encoder="vit_patch32")
    made = jax.eval_shape(module.build(config, tmp_path).network.model.init, jax.random.key(0))
    assert [name for name, leaf in flatten(made).items() if leaf.weak_type] == []
