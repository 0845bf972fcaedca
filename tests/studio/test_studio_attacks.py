"""What is refused: paths, classes, bombs, floods, other sites, wrong tokens. The server goes on."""

from __future__ import annotations

import json
import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
import yaml
from serving import ASKED, ask, made, png, studio_client, upload, wait_for

from nst_lightning.config.presets import beside_package
from nst_lightning.studio.configuration import asked_of
from nst_lightning.studio.limits import Limits
from nst_lightning.studio.options import check_options

TOKEN = "a-token-of-the-tests"
PATHS = ["../../etc/passwd", "/etc/passwd", "..%2f..%2fetc%2fpasswd", "....//etc", "C:\\x", "~/x", "a" * 16, "%00" * 16]


def bomb(width, height):
    """A PNG of a few bytes whose header announces very many pixels."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("path", PATHS)
def test_no_path_leads_out_of_the_folder(shared, path):
    for address in (
        f"/api/uploads/{path}",
        f"/api/pictures/{path}",
        *(f"/api/pictures/{path}/{part}" for part in ("result", "preview", "timelapse", "configuration", "command")),
        f"/static/{path}",
        f"/static/../../{path}",
    ):
        answer = shared.get(address)
        assert answer.status_code in {400, 404}, address
        assert b"root:" not in answer.content
    for method in ("stop", "continue", "larger"):
        assert shared.post(f"/api/pictures/{path}/{method}", json={}).status_code in {404, 405}
    assert shared.delete(f"/api/pictures/{path}").status_code in {404, 405}


@pytest.mark.parametrize(
    "path", [*PATHS, "demo:content/../x", "demo:unknown", "0123456789abcdef", "https://x.org/a.png"]
)
@pytest.mark.parametrize("field", ["content", "content_mask", "image", "mask"])
def test_no_picture_is_named_by_a_path(shared, path, field):
    wish = json.loads(json.dumps(ASKED))
    if field in {"image", "mask"}:
        wish["styles"][0][field] = path
    else:
        wish[field] = path
    for address in ("/api/plan", "/api/pictures"):
        answer = shared.post(address, json=wish)
        assert answer.status_code in {404, 422}
        assert set(answer.json()) == {"error", "field"}


@pytest.mark.parametrize(
    "options",
    [
        {"output": "/tmp/x.png"},
        {"trainer.default_root_dir": "/tmp"},
        {"trainer.callbacks": [{"class_path": "nst_lightning.callbacks.Export", "init_args": {"output": "x.png"}}]},
        {"trainer.logger": "CSVLogger"},
        {"timelapse": "x.gif"},
        {"ckpt_path": "last"},
        {"config": "/etc/passwd"},
        {"data.content": "/etc/passwd"},
        {"data.init": "/etc/passwd"},
        {"data.init": "secret.png"},
        {"data.style": "/etc/passwd"},
        {"model.extractor": "os.system"},
        {"model.extractor": {"class_path": "subprocess.Popen", "init_args": {"args": "id"}}},
        {"model.extractor": {"class_path": "nst_lightning.features.VGG19", "init_args": {"weights": "/etc/passwd"}}},
        {"model.extractor": {"class_path": "VGG19", "init_args": {"weights": "weights"}}},
        {"model.extractor.init_args.weights": "~/x"},
        {"model.extractor": "settings.yaml"},
        {"model.optimizer": {"class_path": "torch.optim.Adam", "dict_kwargs": {"lr": 1}}},
        {"model.optimizer": "torch.load"},
        {"model.terms": [{"class_path": "my_file.MyTerm"}]},
        {"model.terms": "terms.yaml"},
        {"model.stages": [{"evaluations": 5, "extractor": {"class_path": "os.system"}}]},
        {"model.tile": "../x"},
        {"--model.tile": "auto"},
        {"model.tile=1 --output": "auto"},
        {"model.evaluations": 5},
    ],
)
def test_options_name_no_file_and_no_foreign_class(shared, tmp_path, monkeypatch, options):
    monkeypatch.chdir(tmp_path)
    answer = shared.post("/api/pictures", json={**ASKED, "options": options})
    assert answer.status_code == 422
    assert answer.json()["field"].startswith("options.")
    text = json.dumps({"model": {}, **{key: value for key, value in options.items() if "." not in key}})
    for key, value in options.items():
        group, _, name = key.partition(".")
        if group == "model" and name in {"extractor", "optimizer", "terms", "stages", "tile"}:
            text = json.dumps({"model": {name: value}})
            assert shared.post("/api/configuration", content=text).status_code == 422
    assert list(tmp_path.iterdir()) == []


def test_options_of_the_products_own_are_taken(shared):
    name = made(
        shared,
        options={
            "model.terms": [
                {"class_path": "nst_lightning.losses.Content", "init_args": {"layers": ["relu3_1"]}},
                {"class_path": "Gram", "init_args": {"layers": {"relu1_1": 1, "relu2_1": 2}}},
            ],
            "model.extractor": {"class_path": "CompactVGG19", "init_args": {"pooling": "average"}},
            "model.optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.05}},
            "data.init": "noise",
        },
    )
    assert "torch.optim.Adam" in shared.get(f"/api/pictures/{name}/configuration").text


def test_a_configuration_comes_back_as_a_request(shared):
    images = upload(shared, name="photo.png"), upload(shared, name="paint.png")
    wish = {"strength": 2, "keep_colors": True, "stroke_size": 2, "likeness": 0.35, "regions": 3}
    name = made(shared, content=images[0], styles=[{"image": images[1]}], **wish, evaluations=3)
    text = shared.get(f"/api/pictures/{name}/configuration").text
    answer = shared.post("/api/configuration", content=text).json()
    assert answer["pictures"]["content"] == "photo.png"
    assert answer["pictures"]["styles"] == [{"name": "paint.png", "mask": None, "weight": 1.0}]
    asked = answer["asked"]
    assert {key: asked[key] for key in ("size", *wish)} == {"size": 48, **wish}
    assert not {"data.regions", "model.likeness"} & set(asked["options"])
    again = {**asked, "content": images[0], "styles": [{"image": images[1]}]}
    other = ask(shared, **again)
    wait_for(shared, other)
    results = [shared.get(f"/api/pictures/{one}/result").content for one in (name, other)]
    assert results[0] == results[1]


@pytest.mark.parametrize("preset", sorted(path.stem for path in beside_package("configs").glob("*.yaml")))
def test_what_a_preset_says_may_come_from_outside(preset):
    """Or the page could not take back what it wrote of a picture: it did not, of presets with a draft."""
    model = yaml.safe_load((beside_package("configs") / f"{preset}.yaml").read_text(encoding="utf-8"))["model"]
    options = asked_of(yaml.safe_dump({"model": model}))["asked"]["options"]
    assert options["model.terms"] == model["terms"]
    assert options.get("model.draft") == model.get("draft")


def test_both_layers_of_pixels_are_words():
    """In lists, too: a mapping has them as keys, which may be any plain name."""
    term = {"class_path": "Wasserstein", "init_args": {"layers": ["image", "detail", "relu1_1"]}}
    check_options({"model.terms": [term]})


@pytest.mark.parametrize(
    ("styles", "said"),
    [
        ([{"path": "a.png", "layers": ["relu1_1"]}], "got layers; leave it out"),
        ([{"path": "a.png"}, {"path": "b.png", "style_mask": "c.png"}], "got style_mask; leave it out"),
        ({"path": "a.png", "size": 256}, "got size; leave it out"),
        ([{"path": "a.png", "scale": 2}, {"path": "b.png", "scale": 3}], "got 2 and 3; make them the same"),
        (["a.png", {"path": "b.png", "scale": 2}], "got 1.0 and 2; make them the same"),
    ],
)
def test_what_a_request_cannot_say_of_a_style_is_refused(shared, styles, said):
    answer = shared.post("/api/configuration", content=json.dumps({"data": {"style": styles}}))
    assert (answer.status_code, answer.json()["field"]) == (422, "styles")
    assert said in answer.json()["error"]


def test_what_a_request_can_say_of_styles_is_taken():
    nothing = {"style_mask": None, "layers": None, "size": None}
    styles = [{"path": "a.png", "weight": 2, "scale": 2.0, **nothing}, {"path": "b.png", "scale": 2, "mask": "c.png"}]
    found = asked_of(json.dumps({"data": {"style": styles}}))
    assert found["asked"]["stroke_size"] == 2
    assert found["pictures"]["styles"] == [
        {"name": "a.png", "mask": None, "weight": 2},
        {"name": "b.png", "mask": "c.png", "weight": 1.0},
    ]


@pytest.mark.parametrize(("preset", "name"), [("quickstart", "stages"), ("portrait", "draft")])
def test_what_a_file_says_it_has_not_wins_over_the_preset(shared, preset, name):
    none = {"model.draft": None, "model.stages": None}
    written = shared.post("/api/plan", json=ASKED).json()["configuration"]  # which leaves out what is none
    given = json.dumps({"data": {"size": 48}, "model": {"draft": None, "stages": None, "terms": None}})
    for text in (written, given):
        asked = shared.post("/api/configuration", content=text).json()["asked"]
        assert {key: value for key, value in asked["options"].items() if key in none} == none
        asked["options"].setdefault("model.extractor", "CompactVGG19")  # VGG-19 may not be on this machine
        plan = shared.post("/api/plan", json={**ASKED, **asked, "preset": preset, "evaluations": None}).json()
        assert yaml.safe_load(plan["configuration"])["model"].get(name) is None
        assert f"--model.{name}=null" in plan["command"]
    form = {**ASKED, "seconds": 20, "stroke_size": 2, "keep_colors": True, "protect_faces": True}  # filled in before
    asked = shared.post("/api/configuration", content=written).json()["asked"]
    plan = shared.post("/api/plan", json={**form, **asked}).json()
    assert yaml.safe_load(plan["configuration"]) == yaml.safe_load(written)
    part = shared.post("/api/configuration", content="model: {strength: 2, terms: [Content]}").json()["asked"]
    assert part["options"] == {"model.terms": ["Content"]}  # of what it does not speak, the preset has the word


def test_the_contents_own_size_is_refused_in_one_line(shared):
    answer = shared.post("/api/configuration", content="data: {size: content}")
    assert (answer.status_code, answer.json()["field"]) == (422, "size")
    assert answer.json()["error"] == "data.size: must be a number of pixels here, got content; give one, such as 512"


def test_the_start_of_a_larger_picture_is_named_and_left_out(shared):
    answer = shared.post("/api/configuration", content="data: {init: pictures/beginning.tif, seed: 3}").json()
    assert answer["asked"]["options"] == {"data.seed": 3}
    assert answer["pictures"]["init"] == "beginning.tif"
    for word in ("noise", None):
        answer = shared.post("/api/configuration", content=json.dumps({"data": {"init": word}})).json()
        assert "init" not in answer["pictures"]
    assert shared.post("/api/configuration", content="data: {init: [a.tif]}").status_code == 422


@pytest.mark.parametrize(
    "text", ["[1]", "a: [", "model: 3", "!!python/object/apply:os.system [id]", "[" * 5000, "x: 1"]
)
def test_what_is_no_configuration_is_said(shared, text):
    answer = shared.post("/api/configuration", content=text)
    assert answer.status_code == 422
    assert answer.json()["field"] is not None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (bomb(60000, 60000), "pixels"),
        (bomb(9000, 9000), "megapixels"),
        (b"not a picture", "file: "),
        (b"", "file: "),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "file: "),
        (png()[:60], "file: "),
    ],
)
def test_what_is_no_picture_is_not_kept(shared, content, said):
    answer = shared.post("/api/uploads", files={"file": ("x.png", content)})
    assert answer.status_code == 422
    assert said in answer.json()["error"]
    assert answer.json()["field"] == "file"
    assert str(shared.studio.folder) not in answer.text
    assert {place.name for place in shared.studio.uploads.folder.iterdir()} == set(shared.studio.uploads._known)


def test_a_file_that_is_too_large_is_not_read_to_its_end(tmp_path):
    sent = 0

    def pieces():
        nonlocal sent
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="x.png"\r\n\r\n'
        for _ in range(300):
            sent += 1
            yield bytes(1 << 20)
        yield b"\r\n--b--\r\n"

    with studio_client(tmp_path, limits=Limits(megabytes=1)) as client:
        answer = client.post("/api/uploads", files={"file": ("x.png", bytes(1_200_000))})
        assert (answer.status_code, answer.json()["field"]) == (413, "file")
        kind = {"content-type": "multipart/form-data; boundary=b"}
        try:  # who goes on sending may find the line cut before the answer is read
            assert client.post("/api/uploads", content=pieces(), headers=kind).status_code == 413
        except OSError as error:
            assert error is not None
        except Exception as error:
            assert type(error).__module__.startswith("httpx")
        assert sent < 200
        assert client.post("/api/plan", content=b"x" * (2 << 20)).status_code == 413
        assert list(client.studio.uploads.folder.iterdir()) == []
        assert upload(client)


def test_fifty_uploads_at_once_leave_memory_bounded(tmp_path):
    content = png(1000, 750)
    with studio_client(tmp_path) as client:
        for _ in range(2):
            upload(client, content)
        before, most = psutil.Process().memory_info().rss, 0
        with ThreadPoolExecutor(50) as pool:
            answers = [pool.submit(upload, client, content) for _ in range(50)]
            while not all(answer.done() for answer in answers):
                most = max(most, psutil.Process().memory_info().rss)
                time.sleep(0.02)
        print(f"{(most - before) / 2**20:.0f} MiB more at the peak")
        assert len({answer.result() for answer in answers}) == 50
        assert client.get("/health").status_code == 200
    decoded = 1000 * 750 * 32  # bytes of one picture on its way
    assert most - before < 8 * decoded  # and not 50 times that


def test_uploads_go_after_their_time_unless_a_picture_uses_them(client):
    kept, gone = upload(client), upload(client)
    made(client, styles=[{"image": kept}])
    uploads = client.studio.uploads
    later = uploads.find(kept).created + 25 * 3600
    assert uploads.sweep(client.studio.shelf.used_images(), later) == [gone]
    assert client.get(f"/api/uploads/{gone}").status_code == 404
    assert client.get(f"/api/uploads/{kept}").status_code == 200
    assert not (uploads.folder / gone).exists()


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:1"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"host": "evil.example"},
        {"host": "127.0.0.1.evil.example"},
        {"host": ""},
    ],
)
def test_other_sites_are_refused(shared, headers):
    for address, body in (("/api/pictures", ASKED), ("/api/plan", ASKED)):
        answer = shared.post(address, json=body, headers=headers)
        assert answer.status_code in {400, 403}
    if "host" in headers:
        assert shared.get("/api/pictures", headers=headers).status_code in {400, 403}
    assert shared.get("/health").status_code == 200


def test_the_own_page_may_ask(shared):
    origin = {"origin": str(shared.base_url).rstrip("/"), "sec-fetch-site": "same-origin"}
    assert shared.post("/api/plan", json=ASKED, headers=origin).status_code == 200


def test_a_token_is_needed(tmp_path):
    with studio_client(tmp_path, TOKEN) as client:
        assert client.get("/health").status_code == 200
        for address in ("/api/pictures", "/api/facts", "/metrics", "/api/openapi.json", "/api/uploads/demo:content"):
            assert client.get(address).status_code == 401, address
            wrong = {"authorization": "Bearer wrong"}
            assert client.get(address, headers=wrong).status_code == 401, address
            assert client.get(address, headers={"cookie": "nst_studio=wrong"}).status_code == 401, address
            right = {"authorization": f"Bearer {TOKEN}"}
            assert client.get(address, headers=right).status_code == 200, address
        assert client.post("/api/pictures", json=ASKED).status_code == 401
        assert client.post("/login", json={"token": "wrong"}).status_code == 401
        assert not client.cookies
        answer = client.post("/login", json={"token": TOKEN})
        assert answer.status_code == 204
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert TOKEN not in cookie
        assert client.get("/api/pictures").status_code == 200


def test_a_form_logs_in(tmp_path):
    with studio_client(tmp_path, TOKEN) as client:
        answer = client.post("/login", data={"token": TOKEN})
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        assert client.get("/api/pictures").status_code == 200


def test_answers_carry_their_headers(shared):
    for address in ("/", "/health", "/api/pictures", "/api/nothing"):
        headers = shared.get(address).headers
        assert "default-src 'self'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "server" not in headers


def test_headless_serves_no_page(tmp_path):
    with studio_client(tmp_path, headless=True) as client:
        assert client.get("/").status_code == 404
        assert client.get("/static/studio.css").status_code == 404
        assert client.get("/api/facts").json()["limits"]["megabytes"] == 50
        assert "/api/pictures/{name}/continue" in client.get("/api/openapi.json").json()["paths"]
        text = client.get("/metrics").text
        assert 'nst_pictures{status="running"} 0.0' in text
        assert "process_resident_memory_bytes" in text
