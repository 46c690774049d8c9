"""Every message that docs/when_something_is_wrong.md quotes is one that the library says."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "when_something_is_wrong.md").read_text()
QUOTED = [cell for line in PAGE.splitlines() if line.startswith("| `") for cell in re.findall(r"^\| `([^`]+)`", line)]


def written(node):
    """A string as the source has it, with a mark where a value goes."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    return "".join(written(part) if isinstance(part, ast.Constant) else "\0" for part in node.values)


@cache
def said():
    """All that the library may say, strings that are added to each other as one."""
    found = []
    for path in sorted((ROOT / "lightning_sparse").rglob("*.py")):
        tree = ast.parse(path.read_text())
        found += [written(node) for node in ast.walk(tree) if isinstance(node, ast.Constant | ast.JoinedStr)]
    return found


def test_the_page_quotes_messages():
    assert len(QUOTED) >= 30


@pytest.mark.parametrize("message", QUOTED)
def test_a_quoted_message_is_one_that_the_library_says(message):
    parts = [part for part in re.split(r"\s*…\s*", message) if part]
    pattern = re.compile(".*".join(re.escape(part) for part in parts), flags=re.S)
    assert any(pattern.search(text) for text in said()), message
