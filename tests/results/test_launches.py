"""The log of a sweep's launches, and the progress line made from it."""

import json
from dataclasses import replace

from lightning_sparse.app.progress import Progress
from lightning_sparse.results import launches

ASKED = [
    launches.Asked(f"rigl-{seed}", "rigl", "digits", "cnn", seed, 0.9, False, (f"seed={seed}",)) for seed in range(4)
]


def asked(seed):
    return replace(ASKED[seed], overrides=[f"seed={seed}"])  # as JSON gives it back


def test_what_all_launches_did_is_counted(tmp_path):
    assert launches.counts(tmp_path) == dict.fromkeys(launches.counts(tmp_path), 0)
    launches.launch(tmp_path, ASKED)
    for number, (event, how) in enumerate([("done", "trained"), ("failed", "trained"), ("", "trained")]):
        launches.tell(tmp_path, "started", number, f"job{number}", how=how)
        if event:
            launches.tell(tmp_path, event, number, f"job{number}", how=how)
    assert launches.not_started(tmp_path) == [asked(3)]
    launches.launch(tmp_path, ASKED)  # killed at once
    assert launches.not_started(tmp_path) == [asked(3)]
    launches.launch(tmp_path, ASKED[:3])
    launches.tell(tmp_path, "done", 0, "job0", how="skipped")
    launches.tell(tmp_path, "failed", 1, "job1", how="skipped")
    launches.tell(tmp_path, "started", 2, "job2", how="resumed")
    launches.tell(tmp_path, "done", 2, "job2", how="resumed")
    assert launches.not_started(tmp_path) == []
    assert launches.counts(tmp_path) == {
        "launches": 3, "trained": 1, "resumed": 1, "measured": 0, "skipped": 1, "failed": 1, "failed_before": 1, "cut": 1
    }  # fmt: skip
    said = launches.launches_in_words(launches.counts(tmp_path))
    assert said.startswith("3 launches: 1 job trained, 1 resumed, 1 skipped, 1 failed, 1 failed before and not tried")


def test_a_torn_log_costs_its_torn_line(tmp_path):
    launches.launch(tmp_path, None)
    launches.tell(tmp_path, "started", 0, "job0", how="trained")
    path = launches.log_file(tmp_path)
    path.write_bytes(path.read_bytes()[:-9])
    assert [event["event"] for event in launches.read_log(tmp_path)[0]] == ["launched"]
    assert launches.not_started(tmp_path) == []  # a sweeper that decides as it goes


def test_plain_lines_say_what_is_done_running_and_left(tmp_path, capsys):
    launch = launches.launch(tmp_path, ASKED)
    progress = Progress(tmp_path, launch, 4)
    launches.tell(tmp_path, "started", 0, "a", how="trained")
    launches.tell(tmp_path, "started", 1, "b", how="trained")
    launches.tell(tmp_path, "done", 0, "a", how="trained", says="clean 0.9 (60 s)")
    log = launches.log_file(tmp_path)  # as if it had taken a minute
    events = [json.loads(line) for line in log.read_text().splitlines()]
    events[-1]["at"] = events[1]["at"] + 60
    log.write_text("".join(json.dumps(event) + "\n" for event in events))
    launches.launch(tmp_path, ASKED)  # another launch's jobs are not counted in this one
    launches.tell(tmp_path, "done", 3, "z", how="skipped", says="done before")
    progress.end()
    # Two and a half jobs of a minute are left, and two have run at once.
    assert capsys.readouterr().out == "[1/4] a: clean 0.9 (60 s) | 1 running, about 75 s left\n"
