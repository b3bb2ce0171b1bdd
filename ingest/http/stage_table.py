"""The tables of stages and lanes for the page, as the JavaScript module that it loads."""

import msgspec

from shared.pipeline.lanes import Lane
from shared.pipeline.stages import OPERATOR, STAGES

MODULE_NAME = "tables.js"


def tables_module() -> bytes:
    """Return the source of `/static/tables.js`."""
    stages = [
        {"name": stage, "title": row.title, "operation": row.operation_title}
        for stage, row in STAGES.items()
    ]
    constants = {"STAGES": stages, "LANES": list(Lane), "OPERATOR": OPERATOR}
    lines = [
        f"export const {name} = {msgspec.json.encode(value).decode()};"
        for name, value in constants.items()
    ]
    return "\n".join(["// Made of shared/pipeline/stages.py and lanes.py.", *lines, ""]).encode()
