"""Stage packages: a stage file says only what is special about its stage, and the table of stages
names each one.
"""

import ast
import importlib
from pathlib import Path

import pytest

from shared.pipeline.failpoints import POINTS
from shared.pipeline.stages import FIRST_STAGE, STAGES, StageName
from shared.runtime.stage import Stage

ROOT = Path(__file__).parents[2]
PACKAGES = {path.parent.name for path in ROOT.glob("*/__init__.py")}
MAX_NAMES = 15


def project_names(path: Path) -> set[tuple[str, str]]:
    """The names that a module imports from the project, its own package included."""
    imports = [
        n
        for n in ast.walk(ast.parse(path.read_text()))
        if isinstance(n, ast.ImportFrom) and n.module
    ]
    return {
        (each.module or "", name.name)
        for each in imports
        if (each.module or "").partition(".")[0] in PACKAGES
        for name in each.names
    }


@pytest.mark.parametrize("stage", StageName)
def test_a_stage_file_imports_few_names(stage: StageName) -> None:
    names = project_names(ROOT / stage / "stage.py")
    assert 0 < len(names) <= MAX_NAMES, sorted(names)


@pytest.mark.parametrize("stage", StageName)
def test_every_stage_has_a_package_with_one_class_of_its_name(stage: StageName) -> None:
    module = importlib.import_module(f"{stage}.stage")
    own = [
        each
        for each in vars(module).values()
        if isinstance(each, type) and each.__module__ == module.__name__
    ]
    assert [each.name for each in own if issubclass(each, Stage)] == [stage]


def test_the_table_is_a_line_from_the_first_stage_to_the_last() -> None:
    assert list(STAGES) == list(StageName)
    assert [stage.next for stage in StageName] == [*list(StageName)[1:], None]
    assert FIRST_STAGE.keys() == {row.receives for row in STAGES.values()} - {None}


def test_a_stage_reads_the_body_that_the_table_names_and_has_its_failpoints() -> None:
    for stage in StageName:
        assert {f"{stage}.{moment}" for moment in stage.row.failpoints} <= POINTS.keys()
        assert f"{stage}.taken" in POINTS
