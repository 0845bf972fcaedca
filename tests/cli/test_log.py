"""What the command says on standard error: lines where there is no terminal, events for programs, or nearly nothing."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import warnings

import pytest

from nst_lightning.callbacks import Progress
from nst_lightning.callbacks.progress import _Lines, _State
from nst_lightning.cli import main
from nst_lightning.console import log
from nst_lightning.engine.module import StyleTransfer
from nst_lightning.errors import UserError, UserNotice

STAGES = "--model.stages=[{evaluations: 12, scale: 0.5}, {evaluations: 11}]"


@pytest.fixture
def fit(tmp_path, monkeypatch, use_tiny_weights, pair, capsys):
    monkeypatch.chdir(tmp_path)

    def run(*options):
        pictures = ["--data.content", str(pair[0]), "--data.style", str(pair[1]), "--data.size", "48"]
        code = main(["fit", *pictures, "--trainer.accelerator", "cpu", "--snapshot_every", "0", *options])
        captured = capsys.readouterr()
        assert captured.out == ""
        return code, captured.err

    return run


def events(said):
    return [json.loads(line) for line in said.splitlines()]


def test_without_a_terminal_there_are_lines_and_no_bar(fit):
    code, said = fit(STAGES)
    assert code == 0
    assert "\r" not in said
    assert "%|" not in said
    plan, *progress, wrote = said.splitlines()
    assert plan.startswith("cpu (")
    assert wrote.startswith("wrote ")
    # The first look, the one in a new stage and the end; more only where ten seconds have gone by.
    assert len(progress) >= 3
    assert progress[0].startswith("evaluation 10 of 23, stage 1 of 2, loss ")
    assert any(line.startswith("evaluation 20 of 23, stage 2 of 2, loss ") for line in progress)
    assert progress[-1].startswith("evaluation 23 of 23, stage 2 of 2, loss ")


def test_lines_come_after_so_many_seconds(capsys, monkeypatch):
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    lines = _Lines(total=50, done=0, seconds=10.0)
    for evaluation in range(1, 51):
        now += 1.0
        lines.move(_State(evaluation, 2.0, 1, 1))
    lines.close()
    said = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in said] == [f"evaluation {n} of 50" for n in (1, 11, 21, 31, 41, 50)]
    assert said[1] == "evaluation 11 of 50, loss 2, 1 eval/s, about 39 s left"
    assert said[-1] == "evaluation 50 of 50, loss 2, 1 eval/s"


def test_a_run_cut_short_ends_with_where_it_was(capsys):
    lines = _Lines(total=50, done=0, seconds=1e9)
    lines.move(_State(10, 2.0, 1, 1))
    lines.move(_State(17, 2.0, 1, 1))
    lines.close()
    assert [line.split(",")[0] for line in capsys.readouterr().err.splitlines()] == [
        "evaluation 10 of 50",
        "evaluation 17 of 50",
    ]


def test_json_is_an_object_a_line(fit):
    code, said = fit("--log", "json", STAGES, "--output", "out.png")
    assert code == 0
    plan, *progress, first, second = events(said)
    assert plan["event"] == "plan"
    assert (plan["width"], plan["height"], plan["evaluations"], plan["stages"]) == (48, 36, 23, 2)
    assert plan["accelerator"] == "cpu"
    assert {event["event"] for event in progress} == {"progress"}
    assert [event["evaluation"] for event in progress][-1] == 23
    assert [event["evaluation"] for event in progress] == sorted({event["evaluation"] for event in progress})
    assert {event["stage"] for event in progress} == {1, 2}
    assert all(event["loss"] > 0 and event["evaluations"] == 23 for event in progress)
    assert progress[-1]["seconds_left"] == 0
    assert {first["event"], second["event"]} == {"wrote"}
    assert (first["path"], second["path"]) == (f"{plan['folder']}/result.png", "out.png")
    assert log.kind() == "lines"  # as it was


def test_json_from_a_configuration(fit, tmp_path):
    (tmp_path / "my.yaml").write_text("log: json\nmodel: {evaluations: 1}\n", encoding="utf-8")
    assert [event["event"] for event in events(fit("--config", "my.yaml")[1])] == ["plan", "progress", "wrote"]


@pytest.mark.parametrize(
    "options", [["--data.size", "wide"], ["--config", "gatis"], ["photo.jpg"], ["--data.init", "gone.png"]]
)
def test_an_error_is_an_event(fit, options):
    code, said = fit("--log=json", *options)
    assert code == 2
    (error,) = events(said)
    assert (error["event"], error["code"]) == ("error", 2)
    assert error["text"]


def test_a_fault_of_the_program_is_an_event(fit, monkeypatch):
    def fails(*_):
        raise ZeroDivisionError("of all things")

    monkeypatch.setattr(StyleTransfer, "on_train_epoch_start", fails)
    code, said = fit("--log", "json", "--model.evaluations", "1")
    assert code == 1
    error = events(said)[-1]
    assert error["event"] == "error"
    assert error["text"] == "ZeroDivisionError: of all things"
    assert "Traceback" in error["traceback"]
    with pytest.raises(ZeroDivisionError):
        fit("--model.evaluations", "1")


def test_warnings_and_what_others_log_are_events(fit, monkeypatch):
    genuine = StyleTransfer.on_train_epoch_start

    def talk(self):
        genuine(self)
        warnings.warn("careful", UserNotice, stacklevel=1)
        logging.getLogger("lightning.pytorch.somewhere").warning("so and so %d", 3)
        logging.getLogger("a_library").error("bad")

    monkeypatch.setattr(StyleTransfer, "on_train_epoch_start", talk)
    handlers = logging.getLogger().handlers[:], logging.getLogger("lightning.pytorch").handlers[:]
    said = events(fit("--model.evaluations", "1", "--log", "json")[1])
    texts = {event["text"]: event["event"] for event in said}
    assert texts["careful"] == texts["so and so 3"] == texts["bad"] == "warning"
    assert (logging.getLogger().handlers, logging.getLogger("lightning.pytorch").handlers) == handlers


def test_none_is_silent_but_for_warnings_and_errors(fit):
    assert fit("--log", "none", "--model.evaluations", "1") == (0, "")
    code, said = fit("--log", "none", "--data.size", "3")
    assert code == 2
    assert said.startswith("nst: error: data.size")


def test_an_unknown_way_to_speak(fit):
    code, said = fit("--log", "loud")
    assert code == 2
    assert said.startswith("nst: error: log: ")
    assert "json" in said


def test_a_number_that_json_lacks(capsys):
    with log.speaking(["--log", "json"]):
        log.say("progress", "x", loss=float("nan"), best=float("inf"), last=1.5)
    assert events(capsys.readouterr().err) == [
        {"event": "progress", "text": "x", "loss": None, "best": None, "last": 1.5}
    ]


@pytest.mark.parametrize("kind", ["bar", "lines", "json", "none"])
def test_a_signal_is_told(capfd, kind):
    with log.speaking(["--log", kind]):
        log.say_in_handler("stopped", "stopping", signal=signal.SIGTERM)
    said = capfd.readouterr().err
    if kind == "json":
        assert events(said) == [{"event": "stopped", "text": "stopping", "signal": 15}]
    else:
        assert said == {"bar": "\nnst: stopping\n", "lines": "nst: stopping\n", "none": ""}[kind]


def test_nobody_needs_to_listen(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    assert log.kind() == "lines"
    log.say("wrote", "x")


def test_a_process_says_nothing_but_events(tmp_path, use_tiny_weights, pair):
    options = ["--data.content", str(pair[0]), "--data.style", str(pair[1]), "--data.size", "48"]
    command = [sys.executable, "-m", "nst_lightning", "fit", *options, "--log", "json", "--model.evaluations", "2"]
    more = ["--trainer.accelerator", "cpu", "--trainer.callbacks", "[ModelSummary]"]
    run = subprocess.run([*command, *more], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=True)
    assert run.stdout == ""
    kinds = [event["event"] for event in events(run.stderr)]
    assert {"plan", "progress", "wrote"} <= set(kinds) <= {"plan", "progress", "wrote", "warning", "message"}


def test_progress_refuses_what_makes_no_sense():
    for wrong in ({"every": 0}, {"seconds": -1.0}):
        with pytest.raises(UserError, match="progress"):
            Progress(**wrong)
