"""One list of findings and one code: no other module spells either out again."""

import ast
from pathlib import Path

from medvill_jax import findings
from tests.test_architecture import ROOT, files

CODES = {"POSITIVE", "NEGATIVE", "UNCERTAIN", "ABSENT"}


def test_there_are_fourteen_and_the_code_is_that_of_the_label_files() -> None:
    assert len(set(findings.CHEXPERT_FINDINGS)) == 14
    assert (findings.POSITIVE, findings.NEGATIVE, findings.UNCERTAIN, findings.ABSENT) == (1, 0, -1, -2)


def test_no_other_module_lists_them_or_numbers_what_is_said() -> None:
    assert {path.relative_to(ROOT).as_posix() for path in files() if spells_out(path)} == {"medvill_jax/findings.py"}


def spells_out(path: Path) -> bool:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Tuple | ast.List):
            listed = {item.value for item in node.elts if isinstance(item, ast.Constant)}
            if listed >= set(findings.CHEXPERT_FINDINGS):
                return True
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id in CODES:
            return True
    return False
