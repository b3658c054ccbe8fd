"""What a user of an audit can correct."""

from __future__ import annotations

from medvill_jax.errors import UserError


class AuditError(UserError):
    """Data, predictions or a folder that an audit cannot use; the message says what and where."""
