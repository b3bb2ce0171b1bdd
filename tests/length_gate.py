"""Fail when a source file or a function has grown too long to read: files 400 lines (tests 600),
functions 50.
"""

import ast
import subprocess
import sys
from pathlib import Path

MAX_SOURCE_LINES = 400
MAX_TEST_LINES = 600
MAX_FUNCTION_LINES = 50


def findings(path: Path) -> list[str]:
    """What is too long in one Python file, a line each."""
    text = path.read_text()
    lines = text.count("\n")
    limit = MAX_TEST_LINES if path.parts[0] == "tests" else MAX_SOURCE_LINES
    found = [f"{path}: {lines} lines, at most {limit}"] if lines > limit else []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MAX_FUNCTION_LINES:
                found.append(
                    f"{path}:{node.lineno}: {node.name} has {length} lines, at most {MAX_FUNCTION_LINES}"
                )
    return found


def main() -> int:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"],
        capture_output=True,
        text=True,
        check=True,
    )
    found = [
        line
        for name in listed.stdout.split()
        if Path(name).exists()
        for line in findings(Path(name))
    ]
    sys.stderr.write("".join(f"{line}\n" for line in found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
