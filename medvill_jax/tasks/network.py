"""The network of a run: its sizes, its model, and which of its parameters are frozen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax

from medvill_jax.batch import Batch
from medvill_jax.models import views
from medvill_jax.models.encoders import frozen_parts
from medvill_jax.models.finetuned import Finetuned, HeadsConfig
from medvill_jax.models.functional import Functional
from medvill_jax.models.medvill import Medvill, MedvillConfig, sample_cells
from medvill_jax.tasks import setup
from medvill_jax.tasks.data import Vocabulary
from medvill_jax.training.policy import frozen_names
from medvill_jax.trees import flatten

# Folded into a step's key to sample cells; dropout folds in small numbers.
CELLS = 1 << 20


@dataclass(frozen=True)
class Network:
    """A model, and which of its parameters train.

    Attributes:
        config: its sizes.
        model: initialises and binds its parameters.
        unused: regexes of parameters that the task never uses: frozen, and not required of initial weights.
        frozen: names of the frozen parameters.
        frozen_parts: parts of the image encoder of which every parameter is frozen; they keep their statistics.
    """

    config: MedvillConfig
    model: Functional[Any]
    unused: tuple[str, ...]
    frozen: frozenset[str]
    frozen_parts: frozenset[str]

    @property
    def learns_statistics(self) -> bool:
        """Whether BatchNorm uses the statistics of the batch."""
        names = list(flatten(self.model.abstract_stats))
        return bool(frozen_parts(self.config.encoder, names, names) - self.frozen_parts)

    def films(self, batch: Batch) -> views.AnyFilms:
        """The films of a batch as the model takes them: `[B, S, S]` of one view, or those of several."""
        return views.of_batch(batch, self.config.views)

    def sample_cells(self, key: jax.Array | None, rows: int) -> jax.Array | None:
        """`kept_cells` from a key that samples other things too; None, without a key too, keeps all."""
        return None if key is None else self.kept_cells(jax.random.fold_in(key, CELLS), rows)

    def kept_cells(self, key: jax.Array, rows: int) -> jax.Array | None:
        """Indices of the visual tokens that each example keeps in training, int32 `[rows, N]`; None keeps all.

        With several views `[rows, V, N]`, of each film others.
        """
        config = self.config
        if config.num_cells is None:
            return None
        shared = config.compat.shared_cells
        cells = sample_cells(key, rows * config.views, config.grid_cells, config.num_cells, shared=shared)
        return cells if config.views == 1 else cells.reshape(rows, config.views, -1)


def build_network(
    config: setup.Config, vocabulary: Vocabulary, *, heads: HeadsConfig | None = None, unused: Sequence[str] = ()
) -> Network:
    """The network that a configuration describes.

    Args:
        config: of the run.
        vocabulary: of its texts.
        heads: the sizes of the task's heads; None for a model without.
        unused: as `Network.unused`.

    Raises:
        ConfigError: sizes that do not fit together, or a regex of `config.freeze` that matches no parameter.
    """
    sizes = setup.model_config(
        config.model, vocab_size=vocabulary.size, cls_id=vocabulary.cls_id, sep_id=vocabulary.sep_id
    )
    dtype, remat = setup.dtype(config), config.remat
    if heads is None:
        model = Functional[Any](lambda rngs: Medvill(sizes, dtype=dtype, rngs=rngs, remat=remat))
    else:
        model = Functional[Any](lambda rngs: Finetuned(sizes, heads, dtype=dtype, rngs=rngs, remat=remat))
    names = list(flatten(model.abstract_params))
    frozen = frozen_names((*config.freeze, *unused), names)
    return Network(sizes, model, tuple(unused), frozen, frozen_parts(sizes.encoder, names, frozen))
