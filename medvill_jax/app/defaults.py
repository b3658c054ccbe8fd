"""How reports are written unless something else is said; imported without JAX."""

from typing import Any

# Of the decoder; those of the run that wrote the export come first.
DECODING: dict[str, Any] = {
    "beam_size": 1,
    "max_len": 128,
    "min_len": 0,
    "length_penalty": 0.0,
    "no_repeat_ngram": 0,
    "top_p": None,
    "temperature": 1.0,
    "seed": 0,
}
