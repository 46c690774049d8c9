"""The page in a real browser: no error, no request, and it answers to clicks. Needs Chromium, and is skipped without."""

import json
import shutil
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from lightning_sparse.report import write
from lightning_sparse.results.records import Record, append
from lightning_sparse.tables.collect import collect

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# What Chromium asks for by itself, whatever page it shows.
OF_ITS_OWN = {
    "update.googleapis.com",
    "clients2.google.com",
    "accounts.google.com",
    "optimizationguide-pa.googleapis.com",
    "www.google.com",
    "android.clients.google.com",
}
QUIET = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
QUIET += ["--disable-background-networking", "--disable-component-update", "--disable-extensions"]
BEFORE = "<script>const wrong = []; addEventListener('error', (event) => wrong.push(event.message));"
BEFORE += "addEventListener('securitypolicyviolation', (event) => wrong.push(event.blockedURI));</script>"
AFTER = """<script>
addEventListener("load", () => {
  const found = { panels: document.querySelectorAll("figure.live .panel .main-svg").length };
  const main = [...document.querySelectorAll("figure.live")];
  const groups = (figure) => [...figure.querySelectorAll(".panel.js-plotly-plot")].map((panel) =>
    panel.data.filter((trace) => trace.visible && trace.meta.role === "mean").map((trace) => trace.meta.group));
  const button = main[0].querySelector('button[data-group="gradual"]');
  found.before = main.map(groups);
  button.click();
  found.hidden = main.map(groups);
  found.pressed = button.getAttribute("aria-pressed");
  button.click();
  found.again = main.map(groups);
  button.dispatchEvent(new MouseEvent("dblclick"));
  found.alone = groups(main[0]);
  button.dispatchEvent(new MouseEvent("dblclick"));
  const spread = main[0].querySelector(".spread");
  const visible = (trace) => trace.meta.role === "spread" && trace.visible;
  const bands = () => main[0].querySelector(".panel").data.filter(visible).length;
  const heatMap = [...document.querySelectorAll(".panel.js-plotly-plot")].find((panel) => panel.data[0].type === "heatmap");
  const cells = () => [...heatMap.querySelectorAll(".heatmap-label text")].map((text) => text.textContent);
  found.cells = [cells()];
  main[0].querySelector('button[data-group="dense"]').click();
  found.cells.push(cells());
  main[0].querySelector('button[data-group="dense"]').click();
  found.bands = [bands()];
  spread.click();
  found.bands.push(bands());

  const table = document.querySelector("table.sortable");
  const head = [...table.tHead.rows[1].cells].find((cell) => cell.textContent.startsWith("clean accuracy"));
  const order = () => [...table.tBodies].map((body) => body.rows[0].cells[head.cellIndex].textContent.trim().split(" ")[0]);
  found.orders = [order()];
  for (let i = 0; i < 3; i++) { head.click(); found.orders.push(order()); }

  const line = [...document.querySelectorAll("tr.line")].find((row) => row.textContent.includes("gradual"));
  const inside = line.parentElement.querySelector("tr.inside");
  found.inside = [inside.hidden];
  line.click();
  found.inside.push(inside.hidden);
  found.says = inside.textContent;
  found.wrong = wrong;
  const loaded = performance.getEntriesByType("resource").map((entry) => entry.name);
  found.loaded = loaded.filter((name) => !name.startsWith("data:"));
  found.shown = inside.getClientRects().length;
  const out = document.createElement("pre");
  out.id = "found";
  out.textContent = JSON.stringify(found);
  document.body.append(out);
});
</script>"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory, request):
    """What the clicks did, Chromium's log, and the addresses that it asked for."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine")
    write_job = request.getfixturevalue("write_job")
    folder = tmp_path_factory.mktemp("browser") / "quick"
    for seed in (0, 1):
        write_job(folder, "dense", 0.0, seed)
        for level in (0.5, 0.98):
            write_job(folder, "gradual", level, seed)
            write_job(folder, "brain", level, seed, saliency=False)
    job = {"run": "dense-0-s0", "method": "dense", "data": "digits", "model": "cnn", "key": "saliency-0"}
    changes = {"a.weight 0.5": -0.01, "a.weight 0.9": -0.2, "b.weight 0.9": -0.6}  # with a hole
    rows = [Record("sensitivity_accuracy_change", loss, 200, condition=of, **job) for of, loss in changes.items()]
    append(folder / "dense-0-s0" / "records.jsonl", rows)
    (folder / "gradual-0.5-s0" / ".hydra").mkdir()
    (folder / "gradual-0.5-s0" / ".hydra" / "config.yaml").write_text("seed: 0\nsparsity:\n  end: 0.5\n")
    (folder / "gradual-0.98-s1" / ".hydra").mkdir()
    (folder / "gradual-0.98-s1" / ".hydra" / "config.yaml").write_text("seed: 1\nsparsity:\n  end: 0.75\n")
    failed = write_job(folder, "gradual", 0.5, 2, status="failed", error="ValueError: no")
    (failed / "traceback.txt").write_text("Traceback (most recent call last):\n  <here>\nValueError: no\n")
    page = write(collect(folder))
    watched = page.with_name("watched.html")
    source = page.read_text()
    watched.write_text(
        source.replace("<body>", f"<body>{BEFORE}", 1).replace("</body>\n</html>", f"{AFTER}</body></html>")
    )
    return watch(watched, tmp_path_factory.mktemp("profile"))


def watch(page: Path, profile: Path) -> dict:
    log = profile / "net.json"
    command = [CHROMIUM, *QUIET, f"--user-data-dir={profile}", f"--log-net-log={log}", "--window-size=1300,3000"]
    command += [
        "--host-resolver-rules=MAP * ~NOTFOUND",
        "--enable-logging=stderr",
        "--v=0",
        "--virtual-time-budget=8000",
    ]
    done = subprocess.run([*command, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=120)
    assert 'id="found">' in done.stdout, done.stderr[-2000:]
    text = done.stdout.split('id="found">')[1].split("</pre>")[0]
    found = json.loads(text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    events = json.loads(
        log.read_text().rstrip().rstrip(",") + ("" if log.read_text().rstrip().endswith("}") else "]}")
    )["events"]
    asked = {urlsplit(str(event.get("params", {}).get("url", ""))) for event in events}
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return found | {
        "console": console,
        "asked": {url.hostname for url in asked if url.scheme not in ("", "file", "data", "blob", "chrome")},
    }


def test_it_draws_every_panel_without_an_error_and_without_a_request(seen):
    assert seen["console"] == []
    assert seen["wrong"] == []
    assert seen["loaded"] == []
    assert seen["asked"] <= OF_ITS_OWN
    assert seen["panels"] >= 4 + 2 + 4 + 1


def test_a_click_on_the_legend_hides_a_method_in_every_figure(seen):
    everywhere = [groups for figure in seen["before"] for groups in figure]
    assert any("gradual" in groups for groups in everywhere)
    assert not any("gradual" in groups for figure in seen["hidden"] for groups in figure)
    assert all("brain" in groups for groups in seen["hidden"][0])
    assert seen["pressed"] == "false"
    assert seen["again"] == seen["before"]
    assert all(groups == ["gradual"] for groups in seen["alone"])
    assert seen["bands"][0] > 0
    assert seen["bands"][1] == 0


def test_a_heat_map_has_its_numbers_whatever_is_hidden(seen):
    assert seen["cells"] == [["-1.0", "-20.0", "-60.0"]] * 2  # and nothing where nothing was measured


def test_a_click_on_a_heading_sorts_by_number(seen):
    written, rising, falling, again = seen["orders"]
    assert rising == sorted(written, key=float)
    assert falling == rising[::-1]
    assert again == written != rising


def test_a_click_on_a_line_opens_its_jobs(seen):
    assert seen["inside"] == [True, False]
    assert seen["shown"] > 0
    for words in ("gradual-0.5-s0", "sparsity.end=0.5", "ValueError: no", "<here>"):
        assert words in seen["says"]
