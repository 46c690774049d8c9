"""Docstrings say `Example:`, which Griffe takes for a remark; it parses the code of `Examples:`."""

from __future__ import annotations

import re
from typing import Any

import griffe


class Examples(griffe.Extension):
    """Rename the section while the sources are read."""

    def on_object(self, *, obj: Any, **kwargs: Any) -> None:
        """Called by Griffe for every module, class and function."""
        if obj.docstring:
            obj.docstring.value = re.sub(r"^(\s*)Example:$", r"\1Examples:", obj.docstring.value, flags=re.M)
