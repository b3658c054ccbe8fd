"""Cleaning of texts, under the name that programs of users import; it stands in `medvill_jax.data.cleaning`."""

from medvill_jax.data.cleaning import MARK as MARK
from medvill_jax.data.cleaning import MARK_RULES as MARK_RULES
from medvill_jax.data.cleaning import MARKS as MARKS
from medvill_jax.data.cleaning import clean_text as clean_text
