"""The pages of docs/ are true: every method has one, arguments and defaults are those of the code, links lead somewhere,
commands compose, code runs, and pictures show what the callbacks do."""

import ast
import inspect
import re
import runpy
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.utils import instantiate
from omegaconf import OmegaConf

import lightning_sparse
import settings
from lightning_sparse import LayerRules, SparseTraining  # app registers the resolvers
from lightning_sparse.app import hydra_parts  # which registers the resolvers
from lightning_sparse.engine.scores.names import DROP, GROW

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
METHODS = DOCS / "methods"
README = METHODS / "README.md"
PAGES = {path: path.read_text() for path in sorted(DOCS.rglob("*.md"))}
OURS = [path for path in PAGES if path.parent == METHODS]
METHOD_PAGES = [path for path in OURS if path.stem not in ("README", "granularity", "allocation", "pruned_elsewhere")]
CONFIGS = {
    path.stem: conf["_target_"].rpartition(".")[2]
    for path in sorted((ROOT / "conf" / "sparsity").glob("*.yaml"))
    if "_target_" in (conf := OmegaConf.load(path)) and path.stem != "predict_weights"  # no recipe: nothing dies
}
PUBLIC = {name: getattr(lightning_sparse, name) for name in lightning_sparse.__all__}
RECIPES = {
    name: kind
    for name, kind in PUBLIC.items()
    if isinstance(kind, type) and issubclass(kind, SparseTraining) and kind is not SparseTraining
}
REQUIRED = inspect.Parameter.empty


def fenced(page: str, language: str = "") -> list[str]:
    """The code blocks of one language."""
    return [text for name, text in re.findall(r"^```(\w*)\n(.*?)^```", page, flags=re.M | re.S) if name == language]


def section(page: str, title: str) -> str:
    """The text below a heading."""
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", page, flags=re.M | re.S)[1]


def rows(text: str) -> Iterator[list[str]]:
    """The cells of a table's rows, after its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    for line in lines[2:]:
        yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def commands(page: str) -> list[list[str]]:
    lines = [line for block in fenced(page) for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("lightning-sparse")]


def configs_of(page: str) -> list[str]:
    """Which files of conf/sparsity the commands of a page choose."""
    words = [word for command in commands(page) for word in command]
    return [word.removeprefix("sparsity=") for word in words if word.startswith("sparsity=")]


def title_of(page: str) -> str:
    return page.splitlines()[0].removeprefix("# ")


def signature(kind: type) -> dict[str, inspect.Parameter]:
    """The named arguments."""
    found = inspect.signature(kind).parameters
    return {name: p for name, p in found.items() if p.kind is not p.VAR_KEYWORD}


def documented(text: str) -> dict[str, object]:
    """Names and defaults of a table of arguments."""
    return {
        cells[0].strip("`"): REQUIRED if cells[1] == "required" else ast.literal_eval(cells[1].strip("`"))
        for cells in rows(text)
    }


def defaults(kind: type) -> dict[str, object]:
    return {name: parameter.default for name, parameter in signature(kind).items()}


def test_every_method_has_a_config_and_a_page_that_names_it():
    assert set(CONFIGS.values()) == set(RECIPES)
    named = {path: configs_of(PAGES[path]) for path in METHOD_PAGES}
    assert sorted(name for names in named.values() for name in names) == sorted(CONFIGS)
    for path, names in named.items():
        assert names[0] == path.stem
        assert {CONFIGS[name] for name in names} == {title_of(PAGES[path])}
        for name in names:
            assert f"](../../conf/sparsity/{name}.yaml)" in PAGES[path]


@pytest.mark.parametrize("path", METHOD_PAGES, ids=lambda path: path.stem)
def test_a_table_of_knobs_has_every_argument_of_its_method_with_its_default(path):
    knobs = documented(section(PAGES[path], "Knobs"))
    assert list(knobs.items()) == list(defaults(RECIPES[title_of(PAGES[path])]).items())


def test_the_tables_of_common_arguments_have_all_of_them_with_their_defaults():
    common = documented(section(PAGES[README], "What every method takes"))
    assert list(common.items()) == list(defaults(SparseTraining).items())
    rules = documented(section(PAGES[METHODS / "allocation.md"], "Exceptions"))
    assert list(rules) == list(defaults(LayerRules))
    assert rules == vars(LayerRules()) | {"sparsity": {}}


def test_the_table_of_scores_has_all_of_them():
    found = {cells[0].strip('`"'): cells[1] for cells in rows(section(PAGES[README], "Scores"))}
    names = list(dict.fromkeys([*DROP, *GROW]))
    assert found == {n: ", ".join(a for a, known in (("drop", DROP), ("grow", GROW)) if n in known) for n in names}


@pytest.mark.parametrize("path", METHOD_PAGES, ids=lambda path: path.stem)
def test_the_study_finds_its_place_on_every_page(path):
    text = section(PAGES[path], "In the MNIST study")
    markers = re.findall(r"<!-- (.*?) -->", text)
    assert markers == [f"mnist: {path.stem}", "/mnist"]
    assert "<!-- mnist" not in PAGES[path].replace(text, "")


def drawn(kind: type) -> SimpleNamespace:
    """What happens in 2000 steps, by the resolved recipe: shares alive after the updates, and shares replaced."""
    level = 0.5 if kind is lightning_sparse.DenseSparseDense else 0.9
    recipe = kind(level).recipe
    plan = recipe.resolve(2000)
    alive, now, curve = [], 1.0, []
    for step in range(2000):
        if plan.due(step):
            now = 1.0 - plan.sparsity(step)
            curve.append(now)
        alive.append(now)
    births = {after for before, after in zip([1.0, *alive], alive, strict=False) if after > before}
    replaced = [share for step in range(2001) if (share := plan.turnover_at(step))]
    return SimpleNamespace(recipe=recipe, alive=sum(alive) / 2000, births=births, replaced=replaced)


def test_the_table_of_methods_says_what_they_do():
    table = {}
    for method, config, picture, turnover, drop, grow, alive, _ in rows(section(PAGES[README], "All of them")):
        name, page = re.fullmatch(r"\[`(\w+)`\]\((\w+\.md)\)", method).groups()
        table[name] = config
        assert title_of(PAGES[METHODS / page]) == name
        assert f'src="../images/methods/{Path(page).stem}.svg"' in picture
        found = drawn(RECIPES[name])
        assert drop == found.recipe.drop
        assert alive == f"{found.alive:.2f}"
        if found.births == {1.0}:
            assert grow == "all"
        else:
            assert grow == (found.recipe.grow if found.births or found.replaced else "none")
        if not found.replaced:
            assert turnover == "none"
        elif len(set(found.replaced)) == 1:
            assert turnover.startswith("constant")
        else:
            assert turnover.startswith("cosine to 0")
            assert found.replaced == sorted(found.replaced, reverse=True)
        assert ("between layers" in turnover) is found.recipe.redistribute
    assert set(table) == set(RECIPES)
    assert sorted(re.findall(r"`(\w+)`", " ".join(table.values()))) == sorted(CONFIGS)


def test_what_to_write_is_a_callback():
    for _, code, _ in rows(section(PAGES[README], "Which one")):
        assert isinstance(eval(code.strip("`"), dict(PUBLIC)), SparseTraining), code


@pytest.mark.parametrize("path", [path for path in OURS if commands(PAGES[path])], ids=lambda path: path.stem)
def test_every_command_composes_and_makes_a_callback(path):
    assert hydra_parts
    for overrides in commands(PAGES[path]):
        with initialize_config_module("lightning_sparse.conf", version_base="1.3"):
            config = compose("config", overrides=overrides)
        assert isinstance(instantiate(config.sparsity, _convert_="all"), SparseTraining)


def blocks() -> list:
    listed = []
    for path in OURS:
        found = re.findall(r"^```python\n(.*?)^```\n(?:\s*^```text\n(.*?)^```)?", PAGES[path], flags=re.M | re.S)
        for i, (code, output) in enumerate(found):
            listed.append(pytest.param(code, output, id=f"{path.stem}-{i}"))
    return listed


@pytest.mark.filterwarnings("ignore:Starting from v1.9.0, `tensorboardX` has been removed:UserWarning")
@pytest.mark.parametrize(("code", "output"), blocks())
def test_the_code_runs_as_written(code, output, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names = {"module": settings.Module(), "loader": settings.batches(batch_size=32)}
    exec(code, names)
    if output:
        assert capsys.readouterr().out == output
    trained = [one for one in names.values() if isinstance(one, SparseTraining) and one.history]
    assert len(trained) == code.count(".fit(")
    for callback in trained:
        assert settings.exact(callback.masks, callback.recipe.sparsity.final)
        assert settings.dead_are_zero(names["module"], callback.masks)
        turns_over = callback.recipe.turnover.start or any(s.value for s in callback.recipe.turnover.segments)
        assert any(update.replaced for update in callback.history) == bool(turns_over)


def slugs(page: str) -> set[str]:
    """The anchors that GitHub makes of headings."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", page, flags=re.M | re.S), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", [*ROOT.glob("*.md"), *PAGES], ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_pictures_exist(path):
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.M | re.S)
    targets = re.findall(r'\]\(([^)\s]+)\)|src="([^"]+)"', text)
    for target in map("".join, targets):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        assert there.exists(), target
        if anchor and there.suffix == ".md":
            assert anchor in slugs(there.read_text()), target


def curves(svg: Path) -> list[str]:
    """The lines of density and turnover in a picture."""
    return re.findall(r'<g id="(?:density|turnover)">.*?</g>', svg.read_text(), flags=re.S)


def test_the_pictures_show_what_the_callbacks_do(tmp_path):
    """If this fails, draw them again: python examples/method_curves.py."""
    (tmp_path / "examples").mkdir()
    runpy.run_path(str(shutil.copy(ROOT / "examples" / "method_curves.py", tmp_path / "examples")))
    redrawn = sorted((tmp_path / "docs" / "images" / "methods").iterdir())
    assert [path.stem for path in redrawn] == sorted(path.stem for path in METHOD_PAGES)
    for path in redrawn:
        kept = DOCS / "images" / "methods" / path.name
        assert curves(path) == curves(kept), path.name
        assert f"](../images/methods/{path.name})" in PAGES[METHODS / f"{path.stem}.md"]
        assert kept.stat().st_size < 40_000
