"""Docstrings for Griffe, which takes `Example:` for a remark, and the words before a colon in `Returns:` for a type."""

from __future__ import annotations

import re
from typing import Any

import griffe


class Docstrings(griffe.Extension):
    """Rename the section of the example, and write the return type into `Returns:`, as the sources are read."""

    def on_object(self, *, obj: Any, **kwargs: Any) -> None:
        """Called by Griffe for every module, class and function."""
        if obj.docstring:
            obj.docstring.value = re.sub(r"^(\s*)Example:$", r"\1Examples:", obj.docstring.value, flags=re.M)
        if obj.docstring and obj.is_function and obj.returns:
            returned = re.compile(r"^(\s*Returns:\n\s+)", flags=re.M)
            obj.docstring.value = returned.sub(lambda found: f"{found[1]}{obj.returns}: ", obj.docstring.value)
