"""The site: README as its front page, docs/, the files that they link to, and a reference of every public name."""

from __future__ import annotations

import ast
import logging
import re
from os.path import relpath
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
LINK = re.compile(r"(\[(?:[^\[\]]|\[[^\]]*\])*\]\()([^)\s#]+)")
ROLE = re.compile(r":(?:class|func|data|mod|meth|attr):<code>~?([\w.]+)</code>")
LANGUAGES = {".py": "python", ".yaml": "yaml"}
STYLE = """.md-grid { max-width: 72rem; }
.md-typeset td code { word-break: normal; overflow-wrap: normal; }
.md-typeset img { background: white; }
.md-typeset td img { min-width: 9rem; }
.md-nav__link .md-ellipsis { white-space: normal; overflow-wrap: anywhere; }
"""
log = logging.getLogger("mkdocs.hooks")


def public_names() -> dict[str, tuple[str, str]]:
    """Each public name, with the page of the reference that it is on and the module that defines it."""
    found = {}
    for stub in sorted(ROOT.glob("lightning_sparse/**/__init__.pyi")):
        package = ".".join(stub.parent.relative_to(ROOT).parts)
        if package == "lightning_sparse.app":  # what the YAML of conf/ names, and nobody calls
            continue
        for module, name in re.findall(r"^from \.([\w.]+) import \w+ as (\w+)$", stub.read_text(), flags=re.M):
            found[f"{package}.{name}"] = (package, f"{package}.{module}.{name}")
    return found


NAMES = public_names()


def reference(package: str) -> str:
    """A page with every public name of a package, below the first line of its docstring."""
    about = ast.get_docstring(ast.parse((ROOT / package.replace(".", "/") / "__init__.py").read_text())) or ""
    entries = [
        f"::: {home}\n    options:\n        heading: {public}\n        toc_label: {public.rpartition('.')[2]}\n"
        for public, (page, home) in sorted(NAMES.items(), key=lambda item: item[0].lower())
        if page == package
    ]
    return "\n".join([f"# {package}\n", about.partition("\n")[0] + "\n", *entries])


def links(page: Path) -> list[Path]:
    """The files that a page, or a listed folder, links to."""
    if page.is_dir():
        return sorted(path for path in page.rglob("*") if path.suffix in LANGUAGES)
    targets = LINK.findall(page.read_text()) if page.suffix == ".md" else []
    return [(page.parent / target).resolve() for _, target in targets]


def source(path: Path) -> str:
    """A page that shows a file, with a heading for each of its tests so that a link can lead to one, or lists a folder."""
    page = "---\nsearch:\n  exclude: true\n---\n\n"
    if path.suffix == ".md":
        return page + path.read_text()
    title = f"# {path.relative_to(ROOT)}"
    if path.is_dir():
        names = [str(file.relative_to(ROOT)) for file in links(path)]
        return page + "\n".join([f"{title}\n", *(f"- [`{name}`]({name})" for name in names)])
    text = path.read_text()
    lines, starts = text.splitlines(), {0: title}
    for part in ast.parse(text).body if path.suffix == ".py" else []:
        if isinstance(part, ast.FunctionDef) and part.name.startswith("test_"):
            first = min([part, *part.decorator_list], key=lambda node: node.lineno)
            starts[first.lineno - 1] = f"## {part.name}"
    ends = [*list(starts)[1:], len(lines)]
    for (start, heading), end in zip(starts.items(), ends, strict=True):
        code = "\n".join(lines[start:end]).rstrip()
        page += f"{heading}\n\n````{LANGUAGES.get(path.suffix, 'text')}\n{code}\n````\n\n"
    return page


def place(path: Path) -> str:
    """The page that shows a file of the repository; docs/ and README have their own."""
    if DOCS in path.parents:
        return str(path.relative_to(DOCS))
    if path == ROOT / "README.md":
        return "index.md"
    return f"files/{path.relative_to(ROOT)}" + ("" if path.suffix == ".md" else ".md")


def on_files(files: Any, config: Any) -> Any:
    """Add the front page, the reference, and what is linked to: none of them is a file of docs/."""
    for package in dict.fromkeys(page for page, _ in NAMES.values()):
        files.append(File.generated(config, f"reference/{package}.md", content=reference(package)))
    files.append(File.generated(config, "style.css", content=STYLE))
    files.append(File.generated(config, "index.md", content=(ROOT / "README.md").read_text()))
    shown = [ROOT / "README.md", *DOCS.rglob("*.md")]
    for page in shown:  # grows in the loop, by the files that these link to
        for path in links(page):
            if path.exists() and path != DOCS and DOCS not in path.parents and path not in shown:
                files.append(File.generated(config, place(path), content=source(path)))
                shown.append(path)
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Turn links between files of the repository into links between pages, which MkDocs checks."""
    here = page.file.src_uri
    file = ROOT / "README.md" if here == "index.md" else DOCS / here
    file = ROOT / here.removeprefix("files/") if here.startswith("files/") else file

    def moved(found: re.Match[str]) -> str:
        before, target = found.groups()
        path = (file.parent / target).resolve()
        if "://" in target or not path.exists() or (path.is_dir() and DOCS in path.parents):
            return found[0]
        return before + relpath(place(path), Path(here).parent)

    return LINK.sub(moved, markdown)


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """Turn the names in docstrings into links where they are public, and warn of names that do not exist."""

    def linked(found: re.Match[str]) -> str:
        name = next((public for public in NAMES if public.endswith(f".{found[1]}")), found[1])
        shown = f"<code>{name.rpartition('.')[2]}</code>"
        owner = name.rpartition(".")[0] if name not in NAMES and name.rpartition(".")[0] in NAMES else name
        if owner in NAMES and page.file.src_uri.startswith("reference/"):
            where, home = NAMES[owner]
            return f'<a href="{where}.html#{home}">{shown}</a>'
        if name.startswith("lightning_sparse.") and owner not in NAMES and not exists(name):
            log.warning("%s: a docstring refers to %s, which does not exist", page.file.src_uri, name)
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
