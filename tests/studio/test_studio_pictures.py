"""Pictures over HTTP: asked for, watched, stopped, continued, enlarged, fetched."""

from __future__ import annotations

import io
import json
import shlex

import imagecodecs
import pytest
import yaml
from PIL import Image
from serving import ASKED, ask, made, pixels, png, studio_client, upload, wait_for

from nst_lightning.cli import main
from nst_lightning.data import mask_files, request
from nst_lightning.errors import UserError
from nst_lightning.faces import Face
from nst_lightning.images import read_image
from nst_lightning.studio import facts
from nst_lightning.studio.limits import Limits


def test_a_picture_is_made_and_its_pixels_are_those_of_the_command(shared, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content, style = png(60, 40), png(50, 50, (10, 60, 200))
    (tmp_path / "photo.png").write_bytes(content)
    (tmp_path / "paint.png").write_bytes(style)
    images = upload(shared, content, "photo.png"), upload(shared, style, "../paint.png")
    wish = {"strength": 4 / 3, "stroke_size": 0.5, "likeness": 0.7, "regions": 2}
    name = made(shared, content=images[0], styles=[{"image": images[1]}], **wish)
    result = shared.get(f"/api/pictures/{name}/result")
    assert result.headers["content-disposition"].startswith("attachment")
    (tmp_path / "settings.yaml").write_text(shared.get(f"/api/pictures/{name}/configuration").text)
    assert main(["fit", "--config", "settings.yaml", "--output", "fit.png", "--log", "none"]) == 0
    assert pixels((tmp_path / "fit.png").read_bytes()) == pixels(result.content)
    command = shlex.split(shared.get(f"/api/pictures/{name}/command").text)
    assert command[:4] == ["nst", "stylize", "photo.png", "paint.png"]
    assert main([*command[1:], "--log", "none"]) == 0
    assert pixels((tmp_path / "picture.png").read_bytes()) == pixels(result.content)


@pytest.mark.parametrize(
    ("kind", "bits", "sample"),
    [("png", 8, 8), ("png", 16, 16), ("tiff", 8, 8), ("tiff", 16, 16), ("jpg", 8, 8), ("webp", 8, 8), ("avif", 8, 8)],
)
def test_a_result_comes_in_each_format(shared, tmp_path, kind, bits, sample):
    name = made(shared)
    plain = pixels(shared.get(f"/api/pictures/{name}/result").content)
    answer = shared.get(f"/api/pictures/{name}/result", params={"format": kind, "bits": bits})
    assert answer.status_code == 200
    path = tmp_path / f"file.{kind}"
    path.write_bytes(answer.content)
    assert tuple(read_image(path).pixels.shape[-2:]) == (32, 48)
    if sample == 8 and kind in {"png", "tiff", "webp"}:
        assert pixels(answer.content) == plain
    if sample == 16:
        values = read_image(path).pixels * 65535
        assert float((values - values.round()).abs().max()) < 0.01
        assert float((read_image(path).pixels * 255).frac().max()) > 0.01  # more than 8 bits hold


def test_jpeg_xl_loses_nothing(shared):
    name = made(shared)
    plain = pixels(shared.get(f"/api/pictures/{name}/result").content)
    answer = shared.get(f"/api/pictures/{name}/result", params={"format": "jxl"})
    assert imagecodecs.jpegxl_decode(answer.content).tobytes() == plain


def test_what_a_format_has_not_is_said(shared):
    name = made(shared)
    answer = shared.get(f"/api/pictures/{name}/result", params={"format": "jpg", "bits": 16})
    assert answer.status_code == 422
    assert answer.json() == {"error": "bits: must be 8 for jpg, got 16; png, tiff and jxl have 16", "field": "bits"}


@pytest.mark.parametrize("kind", ["webp", "gif"])
def test_a_timelapse_moves(shared, kind):
    name = made(shared)
    with Image.open(io.BytesIO(shared.get(f"/api/pictures/{name}/timelapse", params={"format": kind}).content)) as film:
        assert film.format == kind.upper()
        assert film.n_frames >= 3


def test_a_plan_starts_nothing(client):
    plan = client.post("/api/plan", json=ASKED).json()
    assert (plan["width"], plan["height"], plan["evaluations"]) == (48, 32, 5)
    assert plan["seconds"] > 0
    assert plan["bytes"] > 0
    assert "class_path: nst_lightning.losses.Wasserstein" in plan["configuration"]
    assert plan["command"].startswith("nst stylize demo:content demo:style")
    assert client.get("/api/pictures").json() == []


def test_a_stopped_picture_goes_on_to_the_same_pixels(client):
    whole = made(client, evaluations=40)
    name = ask(client, evaluations=40)
    wait_for(client, name, "running", reached=lambda picture: picture["evaluation"] >= 2)
    assert client.post(f"/api/pictures/{name}/stop").json()["status"] in {"stopping", "stopped"}
    stopped = wait_for(client, name, "stopped")
    assert 2 <= stopped["evaluation"] < 40
    assert stopped["can"] == {"stop": False, "continue": True, "larger": True, "download": True, "remove": True}
    assert client.get(stopped["result"]).status_code == 200
    assert client.post(f"/api/pictures/{name}/continue", json={}).json()["status"] in {"queued", "running"}
    wait_for(client, name)
    whole, parts = (client.get(f"/api/pictures/{one}/result").content for one in (whole, name))
    assert pixels(parts) == pixels(whole)


def test_a_finished_picture_goes_on_as_a_longer_one_would(client):
    long = made(client, evaluations=9)
    name = made(client, evaluations=5)
    assert client.post(f"/api/pictures/{name}/continue", json={"evaluations": 4}).json()["evaluations"] == 9
    picture = wait_for(client, name, reached=lambda picture: picture["evaluation"] == 9)
    assert picture["status"] == "finished"
    contents = [client.get(f"/api/pictures/{one}/result").content for one in (long, name)]
    assert pixels(contents[0]) == pixels(contents[1])


def test_a_picture_goes_on_with_another_strength(client):
    name, other = made(client), made(client)
    for one, strength in ((name, 20), (other, None)):
        client.post(f"/api/pictures/{one}/continue", json={"evaluations": 10, "strength": strength})
        wait_for(client, one, reached=lambda picture: picture["evaluation"] == 15)
    assert client.get(f"/api/pictures/{name}").json()["asked"]["strength"] == 20
    changed, same = (client.get(f"/api/pictures/{one}/result").content for one in (name, other))
    assert pixels(changed) != pixels(same)
    assert "--strength 20" in client.get(f"/api/pictures/{name}/command").text


def test_a_picture_goes_on_with_the_strength_that_goes_without_saying(client):
    name = made(client, strength=2)
    for strength, total in ((1, 10), (3, 15)):
        client.post(f"/api/pictures/{name}/continue", json={"evaluations": 5, "strength": strength})
        wait_for(client, name, reached=lambda picture, total=total: picture["evaluation"] == total)
        written = yaml.safe_load(client.get(f"/api/pictures/{name}/configuration").text)
        assert written["model"]["strength"] == strength


def test_one_of_several_stages_goes_on(client):
    wish = {"preset": "quickstart", "evaluations": 12, "size": 96}
    name = made(client, **wish)
    client.post(f"/api/pictures/{name}/continue", json={"evaluations": 3})
    assert wait_for(client, name, reached=lambda picture: picture["evaluation"] == 15)["evaluations"] == 15


def test_one_that_was_stopped_before_it_began_keeps_its_stages(client):
    before = ask(client, evaluations=400)
    name = ask(client, preset="quickstart", evaluations=None, size=96)
    assert client.post(f"/api/pictures/{name}/stop").json()["status"] == "stopped"
    assert client.post(f"/api/pictures/{name}/continue", json={"evaluations": 6}).json()["evaluations"] == 6
    client.post(f"/api/pictures/{before}/stop")
    assert wait_for(client, name)["evaluation"] == 6
    model = yaml.safe_load(client.get(f"/api/pictures/{name}/configuration").text)["model"]
    assert [stage["scale"] for stage in model["stages"]] == [0.5, 1.0]
    assert model["evaluations"] == 6  # of both


def test_the_command_of_a_picture_that_went_on_makes_its_stages(client, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = made(client, preset="quickstart", evaluations=12, size=96)
    assert "model.stages" not in client.get(f"/api/pictures/{name}/command").text  # the preset says them
    client.post(f"/api/pictures/{name}/continue", json={"evaluations": 3})
    picture = wait_for(client, name, reached=lambda picture: picture["evaluation"] == 15)
    command = shlex.split(client.get(f"/api/pictures/{name}/command").text)
    assert main([*command[1:], "--log", "none"]) == 0
    result = client.get(picture["result"]).content
    assert pixels((tmp_path / "picture.png").read_bytes()) == pixels(result)


def test_the_network_of_a_single_stage_is_kept(client):
    stage = {"evaluations": 4, "extractor": {"class_path": "CompactVGG19", "init_args": {"weights": "narrow"}}}
    name = made(client, evaluations=None, options={"model.stages": [stage]})
    client.post(f"/api/pictures/{name}/continue", json={"evaluations": 2})
    wait_for(client, name, reached=lambda picture: picture["evaluation"] == 6)
    child = client.post(f"/api/pictures/{name}/larger").json()
    wait_for(client, child["id"])
    for one, count in ((name, 6), (child["id"], 10)):
        settings = yaml.safe_load(client.get(f"/api/pictures/{one}/configuration").text)
        [made_stage] = settings["model"]["stages"]
        assert made_stage["evaluations"] == count
        assert made_stage["extractor"]["init_args"]["weights"] == "narrow"


def test_a_larger_one_has_larger_styles(client):
    name = made(client, options={"data.style_size": 32})
    child = client.post(f"/api/pictures/{name}/larger").json()
    assert child["asked"]["options"]["data.style_size"] == 64
    assert "--data.style_size=64" in child["plan"]["command"]


def test_a_larger_one_of_a_preset_that_counts_the_short_side_is_twice_as_large(client):
    name = made(client, preset="gatys", options={"model.extractor": "CompactVGG19", "model.terms": ["Content", "Gram"]})
    child = client.post(f"/api/pictures/{name}/larger").json()
    picture = client.get(f"/api/pictures/{name}").json()
    assert (child["width"], child["height"]) == (2 * picture["width"], 2 * picture["height"])


def test_a_larger_one_begins_with_the_result(client):
    name = made(client)
    child = client.post(f"/api/pictures/{name}/larger").json()
    assert (child["parent"], child["width"], child["height"], child["evaluations"]) == (name, 96, 64, 10)
    assert "--data.init=beginning.tif" in child["plan"]["command"]
    assert "--model.evaluations=10" in child["plan"]["command"]
    client.delete(f"/api/pictures/{name}")  # it needs its parent no more
    picture = wait_for(client, child["id"])
    assert picture["evaluation"] == 10
    with Image.open(io.BytesIO(client.get(picture["result"]).content)) as result:
        assert result.size == (96, 64)
    assert "init: beginning.tif" in client.get(f"/api/pictures/{child['id']}/configuration").text
    assert "--data.init=beginning.tif" in client.get(f"/api/pictures/{child['id']}/command").text


def test_a_larger_one_may_be_too_large(tmp_path):
    with studio_client(tmp_path, limits=Limits(megapixels=0.006)) as client:  # 77 px
        name = made(client)
        answer = client.post(f"/api/pictures/{name}/larger")
    assert (answer.status_code, answer.json()["field"]) == (422, "size")


def test_events_of_one_picture_end_with_it(client):
    name = ask(client, evaluations=30)
    with client.stream("GET", f"/api/pictures/{name}/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = list(answer.iter_lines())
    states = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    assert {line for line in lines if line.startswith("event: ")} == {"event: picture"}
    assert states[-1]["status"] == "finished"
    assert [state["evaluation"] for state in states] == sorted(state["evaluation"] for state in states)


def test_events_of_all_say_what_is_gone(client):
    name = made(client)
    with client.stream("GET", "/api/events") as answer:
        lines = answer.iter_lines()
        first = [next(lines) for _ in range(2)]
        client.delete(f"/api/pictures/{name}")
        later = [line for line, _ in zip(lines, range(3), strict=False)]
    assert first[0] == "event: picture"
    assert json.loads(first[1].removeprefix("data: "))["id"] == name
    assert "event: removed" in later
    assert f'data: {{"id": "{name}"}}' in [*later, first[1]]


def test_what_was_being_stopped_when_the_server_was_killed_is_stopped(tmp_path):
    with studio_client(tmp_path) as client:
        name = ask(client, evaluations=3000)
        wait_for(client, name, "running", reached=lambda picture: picture["evaluation"] >= 2)
    with studio_client(tmp_path) as client:
        wait_for(client, name, "running")
    path = tmp_path / "pictures" / name / "picture.json"
    path.write_text(path.read_text().replace('"running"', '"stopping"'))
    with studio_client(tmp_path) as client:
        picture = wait_for(client, name, "stopped")
        assert picture["can"]["download"]


def test_curve_and_preview_outlive_the_server(tmp_path):
    with studio_client(tmp_path) as client:
        name = made(client)
        before = client.get(f"/api/pictures/{name}").json(), client.get(f"/api/pictures/{name}/losses").json()
        preview = client.get(before[0]["preview"])
    assert (preview.headers["content-type"], preview.headers["cache-control"]) == ("image/jpeg", "no-store")
    with studio_client(tmp_path) as client:
        after = client.get(f"/api/pictures/{name}").json()
        curve = client.get(f"/api/pictures/{name}/losses").json()
        assert client.get(after["preview"]).content == preview.content
    assert after == before[0]
    assert [step for step, _ in curve["total"]] == [1, 2, 3, 4, 5]
    assert curve["total"][-1][1] == pytest.approx(after["loss"])


def test_others_wait_for_their_turn_and_see_their_place(client):
    first = ask(client, evaluations=3000)
    wait_for(client, first, "running")
    second, third = ask(client), ask(client)
    assert [client.get(f"/api/pictures/{one}").json()["place"] for one in (second, third)] == [1, 2]
    assert client.post(f"/api/pictures/{second}/stop").json()["status"] == "stopped"
    assert client.get(f"/api/pictures/{third}").json()["place"] == 1
    assert client.delete(f"/api/pictures/{first}").status_code == 204
    assert client.get(f"/api/pictures/{first}").status_code == 404
    wait_for(client, third)
    assert not (client.studio.folder / "pictures" / first).exists()
    assert [one["id"] for one in client.get("/api/pictures").json()] == [third, second]
    client.post(f"/api/pictures/{second}/continue", json={})  # which was never begun
    wait_for(client, second)


def test_too_many_may_not_wait(tmp_path):
    with studio_client(tmp_path, limits=Limits(queued=1)) as client:
        name = ask(client, evaluations=3000)
        wait_for(client, name, "running")
        other = ask(client)
        answer = client.post("/api/pictures", json=ASKED)
        assert (answer.status_code, answer.json()["field"]) == (429, "queue")
        client.delete(f"/api/pictures/{other}")
        client.delete(f"/api/pictures/{name}")


def test_in_a_given_time(client):
    name = ask(client, evaluations=None, seconds=1)
    picture = wait_for(client, name)
    assert picture["evaluations"] == picture["evaluation"] >= 12


def test_in_a_given_time_it_is_no_larger_than_the_server_makes_them(tmp_path):
    with studio_client(tmp_path, limits=Limits(megapixels=0.2)) as client:  # 447 px
        name = ask(client, evaluations=None, size=None, seconds=3600)
        picture = wait_for(client, name, "running", reached=lambda picture: picture["evaluation"] >= 1)
        assert picture["evaluations"] == 320  # four times a preset's, and no more
        assert "--data.size=384" in client.get(f"/api/pictures/{name}/command").text


def test_a_time_and_a_number_of_evaluations_are_not_given_at_once(client):
    answer = client.post("/api/pictures", json={**ASKED, "seconds": 9})
    assert (answer.status_code, answer.json()["field"]) == (422, "seconds")
    assert answer.json()["error"] == "seconds: must be null beside evaluations, got 9 and 5; leave one out"


def test_masks_and_several_styles(client):
    mask = Image.new("L", (48, 32))
    mask.paste(255, (0, 0, 24, 32))
    out = io.BytesIO()
    mask.save(out, "PNG")
    left = upload(client, out.getvalue(), "left.png", kind="mask")
    styles = [{"image": "demo:style", "mask": left}, {"image": upload(client), "weight": 2}]
    name = made(client, styles=styles, content_mask=left)
    text = client.get(f"/api/pictures/{name}/configuration").text
    assert "mask: left.png" in text
    assert "content_mask: left.png" in text
    assert client.get(f"/api/pictures/{name}/command").text.startswith("nst fit ")


@pytest.fixture
def faces(monkeypatch):
    """A detector that is installed, and finds a face in each picture."""
    monkeypatch.setattr(mask_files, "find_faces", lambda _: [Face(0.2, 0.2, 0.6, 0.8)])
    for module in (request, facts):
        monkeypatch.setattr(module, "check_weights", lambda: None)


def test_faces_are_protected(client, faces):
    assert client.get("/api/facts").json()["faces"] == {"can_be_found": True, "reason": ""}
    wish = {"evaluations": 10, "options": {"data.content_floor": 0.0}}
    plain, name = made(client, **wish), made(client, **wish, protect_faces=True)
    plain, clear = (pixels(client.get(f"/api/pictures/{one}/result").content) for one in (plain, name))
    assert plain != clear
    assert "--protect-faces" in client.get(f"/api/pictures/{name}/command").text
    text = client.get(f"/api/pictures/{name}/configuration").text
    assert "content_mask: faces" in text
    answer = client.post("/api/configuration", content=text).json()
    assert (answer["asked"]["protect_faces"], answer["pictures"]["content_mask"]) == (True, None)


def test_faces_that_cannot_be_found_are_refused_with_their_field(shared, monkeypatch):
    def check():
        raise UserError("data.content_mask: faces needs the package x, which is not installed; pip install x")

    for module in (request, facts):
        monkeypatch.setattr(module, "check_weights", check)
    reason = "needs the package x, which is not installed; pip install x"
    assert shared.get("/api/facts").json()["faces"] == {"can_be_found": False, "reason": reason}
    answer = shared.post("/api/pictures", json={**ASKED, "protect_faces": True})
    assert (answer.status_code, answer.json()["field"]) == (422, "protect_faces")
    assert reason in answer.json()["error"]


@pytest.mark.parametrize(
    ("wish", "field", "said"),
    [
        ({"regions": 1}, "regions", "data.regions: must be 0 or from 2 to 8, got 1; 3 is a good start"),
        ({"regions": 2, "options": {"data.regions": 3}}, "regions", "data.regions: must be given once, got 2 and 3"),
        ({"likeness": 1, "options": {"model.likeness": 0}}, "likeness", "model.likeness: must be given once, got 1.0"),
        (
            {"protect_faces": True, "content_mask": "demo:mask"},
            "protect_faces",
            "protect_faces: must be false beside a content_mask",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_its_field(shared, wish, field, said):
    answer = shared.post("/api/plan", json={**ASKED, **wish})
    assert answer.status_code == 422
    assert answer.json()["field"] == field
    assert answer.json()["error"].startswith(said)


def test_each_preset_says_its_regions_and_none_can_be_asked_for(shared):
    known = {preset["name"]: preset["regions"] for preset in shared.get("/api/facts").json()["presets"]}
    assert (known["fast"], known["photoreal"]) == (0, 3)
    for given, meant in ((None, 3), (0, 0)):
        plan = shared.post("/api/plan", json={**ASKED, "preset": "photoreal", "regions": given}).json()
        assert f"regions: {meant}\n" in plan["configuration"]


def test_each_preset_says_its_likeness(shared):
    known = {preset["name"]: preset["likeness"] for preset in shared.get("/api/facts").json()["presets"]}
    assert (known["fast"], known["portrait"]) == (0.5, 0.85)
    without = {"options": {"model.extractor": "CompactVGG19"}}  # VGG-19, which may not be on this machine
    plan = shared.post(
        "/api/plan", json={**ASKED, **without, "preset": "portrait", "size": 48, "likeness": None}
    ).json()
    assert "likeness: 0.85" in plan["configuration"]
