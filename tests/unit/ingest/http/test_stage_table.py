"""The page gets its stages and lanes from the tables, and names none itself."""

import json
import re
from importlib.resources import files

from ingest.http.stage_table import tables_module
from ingest.inspection.history import Minute
from shared.pipeline.lanes import Lane
from shared.pipeline.stages import OPERATOR, StageName

SCRIPTS = [
    path for path in (files("ingest.http") / "static").iterdir() if path.name.endswith(".js")
]


def constants() -> dict[str, object]:
    found = re.findall(r"^export const (\w+) = (.*);$", tables_module().decode(), re.MULTILINE)
    return {name: json.loads(value) for name, value in found}


def test_the_module_has_every_stage_and_lane_in_order() -> None:
    tables = constants()
    assert tables["LANES"] == list(Lane)
    assert tables["OPERATOR"] == OPERATOR
    assert tables["STAGES"] == [
        {"name": stage, "title": stage.row.title, "operation": stage.row.operation_title}
        for stage in StageName
    ]


def test_no_script_of_the_page_names_a_stage() -> None:
    assert SCRIPTS
    named = [
        (path.name, stage) for path in SCRIPTS for stage in StageName if stage in path.read_text()
    ]
    assert named == []


def test_every_stage_has_its_time_in_the_history() -> None:
    assert {f"{stage}_ms" for stage in StageName} < set(Minute.__struct_fields__)
