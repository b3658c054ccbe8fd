"""Libraries that read films warn in their own words; what a user can do something about is an error."""

from __future__ import annotations

import warnings


def quiet() -> None:
    """Has them say nothing for the rest of this process: of a program, not of a library."""
    warnings.filterwarnings("ignore", module=r"(PIL|pydicom|pylibjpeg|openjpeg|libjpeg)\b")
