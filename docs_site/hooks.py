"""The site: README as its front page, docs/, and a reference of every public name, made from the stubs that list them."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
WINGS = ("", "measure", "statistics", "data", "models")
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
ROLE = re.compile(r":(?:class|func|data|mod|meth|attr):<code>~?([\w.]+)</code>")
log = logging.getLogger("mkdocs.hooks")


def public_names() -> dict[str, tuple[str, str]]:
    """Each public name, with the page of the reference that it is on and the module that defines it."""
    found = {}
    for wing in WINGS:
        package = ".".join(part for part in ("lightning_sparse", wing) if part)
        stub = ROOT / package.replace(".", "/") / "__init__.pyi"
        for module, name in re.findall(r"^from \.([\w.]+) import \w+ as (\w+)$", stub.read_text(), flags=re.M):
            found[f"{package}.{name}"] = (package, f"{package}.{module}.{name}")
    return found


NAMES = public_names()


def on_files(files: Any, config: Any) -> Any:
    """Add the front page and the reference, which are no files of docs/."""
    front = re.sub(r"\]\(docs/", "](", (ROOT / "README.md").read_text())
    files.append(File.generated(config, "index.md", content=front))
    for package in dict.fromkeys(page for page, _ in NAMES.values()):
        entries = [
            f"::: {home}\n    options:\n        heading: {public}\n        toc_label: {public.rpartition('.')[2]}\n"
            for public, (page, home) in sorted(NAMES.items(), key=lambda item: item[0].lower())
            if page == package
        ]
        content = f"# {package}\n\n" + "\n".join(entries)
        files.append(File.generated(config, f"reference/{package}.md", content=content))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Turn links that leave docs/ into the paths of files of the repository, which have to be there."""
    folder = ROOT if page.file.src_uri == "index.md" else (ROOT / "docs" / page.file.src_uri).parent

    def inside(found: re.Match[str]) -> str:
        picture, text, target = found.groups()
        path = (folder / target.partition("#")[0]).resolve()
        if "://" in target or target.startswith("#") or (ROOT / "docs") in path.parents or path == ROOT / "docs":
            return found[0]
        if folder == ROOT and not path.exists():  # README's links into docs/, rewritten above: MkDocs checks them
            return found[0]
        if not path.exists():
            log.warning("%s: %s is not there", page.file.src_uri, target)
        named = str(path.relative_to(ROOT))
        return f"`{named}`" if picture or text.strip("`") in (named, path.name) else f"{text} (`{named}`)"

    return LINK.sub(inside, markdown)


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """Turn what docstrings refer to into links, where it is public, and say what refers to nothing."""

    def linked(found: re.Match[str]) -> str:
        name = found[1]
        shown = f"<code>{name.rpartition('.')[2]}</code>"
        owner = name.rpartition(".")[0] if name not in NAMES and name.rpartition(".")[0] in NAMES else name
        if owner in NAMES and page.file.src_uri.startswith("reference/"):
            where, home = NAMES[owner]
            return f'<a href="{where}.html#{home}">{shown}</a>'
        if name.startswith("lightning_sparse.") and owner not in NAMES and not exists(name):
            log.warning("%s: a docstring refers to %s, which is not there", page.file.src_uri, name)
        return shown

    return ROLE.sub(linked, html)


def exists(name: str) -> bool:
    """Whether a dotted name is a module of the package, or defined in one."""
    path, rest = ROOT, name.split(".")
    while rest and (path / rest[0]).is_dir():
        path, rest = path / rest[0], rest[1:]
    if not rest:
        return True
    if (path / f"{rest[0]}.py").exists():
        path, rest = path / f"{rest[0]}.py", rest[1:]
    source = path.read_text() if path.is_file() else ""
    return all(re.search(rf"^\s*(?:def |class )?{re.escape(part)}\b", source, flags=re.M) for part in rest)
