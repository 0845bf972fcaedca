"""A server that is killed, terminated or interrupted: what was under way goes on, to the same bits."""

from __future__ import annotations

import signal

import pytest
from serving import Server, ask, pixels, studio_client, wait_for

from nst_lightning.cli import main
from nst_lightning.studio.studio import Studio

EVALUATIONS = 60
_WISH = {"evaluations": EVALUATIONS, "size": 64, "options": {"model.optimizer.history_size": 10}}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The pixels of a picture that nothing disturbs."""
    with studio_client(tmp_path_factory.mktemp("undisturbed")) as client:
        name = ask(client, **_WISH)
        wait_for(client, name)
        return pixels(client.get(f"/api/pictures/{name}/result").content)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_picture_goes_on_after_a_signal(tmp_path, undisturbed, number, code):
    with Server(tmp_path, "--checkpoint_seconds", "0.1") as server:
        name, other = ask(server.client, **_WISH), ask(server.client)
        checkpoints = tmp_path / "pictures" / name / "run" / "checkpoints"
        before = wait_for(server.client, name, "running", reached=lambda _: any(checkpoints.glob("*.ckpt")))
        ended = server.end(number)
    assert ended.code == code
    assert "Traceback" not in ended.said
    assert before["evaluation"] < EVALUATIONS
    assert any(checkpoints.glob("*.ckpt"))
    with studio_client(tmp_path) as client:
        assert client.get(f"/api/pictures/{name}").json()["status"] in {"queued", "running"}
        assert wait_for(client, other)["evaluation"] == 5
        assert client.get(f"/api/pictures/{name}").json()["status"] == "finished"  # it came first
        assert pixels(client.get(f"/api/pictures/{name}/result").content) == undisturbed


def test_one_server_at_a_time_works_in_a_folder(tmp_path, capfd):
    studio = Studio(tmp_path, ["cpu"])
    assert main(["studio", "--folder", str(tmp_path), "--device", "cpu"]) == 2
    assert "--folder: must be one in which no other studio works" in capfd.readouterr().err
    studio.close()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--host", "0.0.0.0"], "--host: must be 127.0.0.1 without a token, got 0.0.0.0; give --token or NST_STUDIO"),
        (["--token", "short"], "--token: must have at least 8 characters"),
        (["--port", "70000"], "--port: must be from 0 to 65535, got 70000"),
        (["--device", "cpu", "cpu"], "--device: must name each device once, got cpu cpu"),
        (["--device", "cpu:x"], "--device: must be a kind such as cuda or one device such as cuda:1, got cpu:x"),
        (["--max_megabytes", "0"], "--max_megabytes: must be above 0, got 0"),
        (["--keep_hours", "nan"], "--keep_hours: must be above 0, got nan"),
    ],
)
def test_what_the_command_refuses(tmp_path, capfd, monkeypatch, words, line):
    monkeypatch.delenv("NST_STUDIO_TOKEN", raising=False)
    assert main(["studio", "--folder", str(tmp_path / "studio"), *words]) == 2
    assert line in capfd.readouterr().err
    assert not (tmp_path / "studio").exists()


def test_what_is_not_installed_is_said(capfd, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["studio"]) == 2
    assert "pip install 'nst_lightning[studio]'" in capfd.readouterr().err


def test_a_port_that_is_taken_is_said(tmp_path, client, capfd):
    port = client.base_url.port
    assert main(["studio", "--folder", str(tmp_path / "other"), "--device", "cpu", "--port", str(port)]) == 2
    assert f"--port: must be free, got {port} on 127.0.0.1" in capfd.readouterr().err
