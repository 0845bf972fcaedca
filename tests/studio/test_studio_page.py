"""The page of ``nst studio`` in a real browser: what people do with it, and what they see."""

from __future__ import annotations

import io
import re
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

sync_api = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
for needed in ("fastapi", "uvicorn", "sse_starlette", "multipart", "prometheus_client"):
    pytest.importorskip(needed, reason="needs the extra studio")

from serving import Server  # noqa: E402

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs a Chromium on this machine")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
WIDE, NARROW = (1400, 900), (390, 844)
PATIENCE = 600_000  # milliseconds; a busy machine may take its time
SIZE = "96"
ENDLESS = "100000"  # evaluations: such a run is stopped
MEGABYTE = 1
TIMES = "\N{MULTIPLICATION SIGN}"

Open = Callable[..., Any]


# ---- the server, the browser and the pictures


def paint(path: Path, seed: int, size: tuple[int, int] = (120, 80)) -> Path:
    """A picture of soft shapes."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(path)
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("pictures")
    made = {name: str(paint(folder / f"{name}.png", seed)) for seed, name in enumerate(("photo", "painting", "other"))}
    (folder / "bad.png").write_text("this is no picture", encoding="utf-8")
    noise = np.random.default_rng(9).integers(0, 256, (900, 900, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "large.png")  # more than a megabyte, which cannot be compressed
    Image.fromarray(np.pad(np.full((40, 60), 255, np.uint8), 20)).resize((120, 80)).save(folder / "mask.png")
    Image.new("L", (80, 80), 255).save(folder / "square.png")
    return made | {name: str(folder / f"{name}.png") for name in ("bad", "large", "mask", "square")}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("studio") / "folder", f"--max_megabytes={MEGABYTE}") as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Any, server: Server) -> Iterator[Open]:
    """Open the studio; what goes wrong in any page of the test, or leaves the server, fails the test at its end."""
    contexts, wrong, allowed = [], [], []

    def watch(page: Any, base: str) -> None:
        page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        page.on("console", lambda message: message.type == "error" and wrong.append(f"console: {message.text}"))
        page.on("request", lambda request: request.url.startswith((base, "blob:", "data:"))
                or wrong.append(f"foreign request: {request.url}"))  # fmt: skip

    def open_page(hash: str = "#new", *, size: tuple[int, int] = WIDE, allow: str = "", base: str = server.address,
                  ready: str = "#preset option", **settings: Any) -> Any:  # fmt: skip
        allowed.append(allow)
        context = browser.new_context(viewport={"width": size[0], "height": size[1]}, **settings)
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        page = context.new_page()
        watch(page, base)
        page.goto(f"{base}/{hash}")
        page.locator(ready).first.wait_for(state="attached")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert [line for line in wrong if not any(word and re.search(word, line) for word in allowed)] == []


@pytest.fixture(autouse=True)
def nothing_is_left_running(server: Server) -> Iterator[None]:
    yield
    for picture in listed(server):
        server.client.delete(f"/api/pictures/{picture['id']}").raise_for_status()


def listed(server: Server) -> list[dict[str, Any]]:
    return server.client.get("/api/pictures").json()


# ---- what people do


def choose(page: Any, pictures: dict[str, str], *styles: str) -> None:
    page.set_input_files("#content-file", pictures["photo"])
    expect(page, "#content-name").to_have_text("photo.png")
    for count, style in enumerate(styles or ("painting",), 1):
        page.set_input_files("#styles-file", pictures[style])
        expect(page, "#styles > li").to_have_count(count)


def set_length(page: Any, evaluations: str, size: str = SIZE) -> None:
    page.fill("#size", size)
    page.select_option("#length", "evaluations")
    page.fill("#length-number", evaluations)
    expect(page, "#plan").to_contain_text(f"{int(evaluations)} evaluation")


def start(page: Any) -> str:
    """Start, and give the picture's id."""
    before = page.url
    page.click("#start")
    page.wait_for_url(lambda url: url != before and re.search(r"#[0-9a-f]{16}$", url) is not None)
    return page.url.rpartition("#")[2]


def expect(page: Any, selector: str) -> Any:
    sync_api.expect.set_options(timeout=PATIENCE)
    return sync_api.expect(page.locator(selector))


def wait_for(page: Any, status: str) -> None:
    page.locator(f"#view[data-status={status}]").wait_for()


def make(page: Any, pictures: dict[str, str], evaluations: str = "4") -> str:
    """A small picture, until it is finished."""
    choose(page, pictures)
    set_length(page, evaluations)
    name = start(page)
    wait_for(page, "finished")
    return name


SEEN = """() => {
  const image = document.getElementById("after");
  if (!image.complete || !image.naturalWidth) return null;
  const context = new OffscreenCanvas(48, 32).getContext("2d");
  context.drawImage(image, 0, 0, 48, 32);
  return context.getImageData(0, 0, 48, 32).data.join();
}"""  # the pixels in the middle of the page


def watch_pictures(page: Any, wanted: int) -> set[str]:
    """Look at the page until so many different pictures have been seen in a run that still goes on."""
    seen: set[str] = set()
    while len(seen) < wanted:
        pixels = page.evaluate(SEEN)
        assert page.get_attribute("#view", "data-status") in {"queued", "running"}
        if pixels:
            seen.add(pixels)
        page.wait_for_timeout(100)
    return seen


def test_a_picture_grows_is_stopped_and_goes_on(open_page, pictures):
    page = open_page()
    choose(page, pictures)
    set_length(page, ENDLESS)
    start(page)
    assert len(watch_pictures(page, 5)) == 5
    expect(page, "#curve path").to_have_count(1)
    assert re.search(r"From [\d.e+]+ to [\d.e+]+ after \d+ evaluation", page.get_attribute("#curve", "aria-label"))
    expect(page, "#progress-said").to_contain_text(f"of {ENDLESS} evaluations")
    assert page.title().endswith("nst studio")
    page.click("#stop")
    wait_for(page, "stopped")
    expect(page, "#progress-said").to_contain_text("Stopped after")
    expect(page, "#stop").to_be_hidden()
    stopped = int(page.evaluate("document.getElementById('progress').value"))
    assert stopped >= 5
    page.fill("#continue-evaluations", "3")
    page.locator("#continue-strength").fill("1")
    expect(page, "#continue-strength-said").to_have_text(f"{TIMES} 2")
    page.click("#continue button")
    wait_for(page, "finished")
    expect(page, "#progress-said").to_contain_text(f"Finished: {stopped + 3} evaluations")


def test_again_larger_begins_with_the_result(open_page, pictures):
    page = open_page()
    first = make(page, pictures)
    page.click("#larger")
    page.wait_for_url(lambda url: re.search(r"#[0-9a-f]{16}$", url) and not url.endswith(first))
    expect(page, "#settings").to_contain_text(f"192 {TIMES} 128 px")
    expect(page, "#settings").to_contain_text("a smaller picture")
    wait_for(page, "finished")
    expect(page, "#history-list button").to_have_count(2)
    page.click(f"#history-list button[data-id='{first}']")
    expect(page, "#settings").to_contain_text(f"96 {TIMES} 64 px")
    expect(page, "#size").to_have_value(SIZE)
    expect(page, "#length-number").to_have_value("4")
    page.go_back()
    expect(page, "#settings").to_contain_text(f"192 {TIMES} 128 px")
    expect(page, "#size").to_have_value("192")


def paint_where(page: Any, index: int) -> None:
    page.locator("#styles button", has_text="Paint where").nth(index).click()
    page.locator("#brush").wait_for()


def drag(page: Any, share: float) -> None:
    """A stroke over the left half of the picture, at a share of its height."""
    box = page.locator("#brush-canvas").bounding_box()
    page.mouse.move(box["x"] + 0.1 * box["width"], box["y"] + share * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.45 * box["width"], box["y"] + share * box["height"], steps=4)
    page.mouse.up()


def test_masks_are_painted_and_used(open_page, pictures, server):
    page = open_page()
    choose(page, pictures, "painting", "other")
    paint_where(page, 0)
    expect(page, "#brush-title").to_have_text("Where painting.png goes")
    drag(page, 0.3)
    drag(page, 0.6)
    painted = percent(page)
    assert painted > 5
    page.keyboard.press("Control+z")
    assert 0 < percent(page) < painted
    page.click("#brush-fill")
    assert percent(page) == 100
    page.click("#brush-undo")
    page.click("#brush-use")
    expect(page, "#brush").to_be_hidden()
    page.click("#content-paint")
    page.click("#brush-use")
    expect(page, "#error-brush").to_contain_text("Nothing is painted")
    page.click("#brush-fill")
    page.click("#brush-use")
    expect(page, "#brush").to_be_hidden()
    set_length(page, "3")
    start(page)
    expect(page, "#settings").to_contain_text("1 style painted, part stays clear")
    wait_for(page, "finished")
    asked = listed(server)[0]["asked"]
    mask = fetch_picture(server, f"/api/uploads/{asked['styles'][0]['mask']}").convert("L").resize((120, 80))
    assert mask.getpixel((30, 24)) > 200
    assert mask.getpixel((110, 70)) < 50
    assert np.asarray(fetch_picture(server, f"/api/uploads/{asked['content_mask']}").convert("L")).min() > 200
    paint_where(page, 0)
    assert percent(page) > 0  # what was painted is there again
    page.click("#brush-whole")
    expect(page, "#styles > li >> nth=0").to_contain_text("painting.png")
    expect(page, "#styles .help:visible").to_have_count(0)  # nothing that says it goes where it is painted


def test_masks_are_painted_by_keyboard_and_come_from_files(open_page, pictures):
    page = open_page()
    choose(page, pictures)
    paint_where(page, 0)
    page.focus("#brush-canvas")
    page.keyboard.press("Space")
    once = percent(page)
    assert once > 0
    for _ in range(6):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    assert once < percent(page) <= 2 * once + 1
    page.set_input_files("#brush-file", pictures["square"])
    expect(page, "#error-brush").to_contain_text("must have the picture's shape (120 x 80), got 80 x 80")
    page.click("#brush-clear")
    page.set_input_files("#brush-file", pictures["mask"])
    expect(page, "#brush-said").not_to_have_text("0 % painted")
    expect(page, "#error-brush").to_be_hidden()
    given = percent(page)
    assert 5 < given < 95
    page.click("#brush-erase")
    expect(page, "#brush-erase").to_have_attribute("aria-pressed", "true")
    page.focus("#brush-canvas")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Space")
    assert percent(page) < given
    page.keyboard.press("Escape")
    expect(page, "#brush").to_be_hidden()
    expect(page, "#styles").not_to_contain_text("Goes where it is painted.", use_inner_text=True)


def percent(page: Any) -> int:
    page.locator("#brush").wait_for()
    return int(page.inner_text("#brush-said").split()[0])


def fetch_picture(server: Server, path: str) -> Image.Image:
    return Image.open(io.BytesIO(server.client.get(path).content))


def test_a_phone_has_the_picture_first_and_is_painted_on_by_finger(open_page, pictures):
    page = open_page(size=NARROW, has_touch=True, is_mobile=True)
    choose(page, pictures)
    expect(page, ".camera").to_be_visible()
    page.click("#content-paint")  # on a slow machine a tap may last long enough to be another gesture
    page.locator("#brush").wait_for()
    box = page.locator("#brush-canvas").bounding_box()
    finger = page.context.new_cdp_session(page)
    for kind, share in (("touchStart", 0.2), ("touchMove", 0.5), ("touchMove", 0.8), ("touchEnd", None)):
        points = [{"x": box["x"] + share * box["width"], "y": box["y"] + 0.5 * box["height"]}] if share else []
        finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    assert percent(page) > 8  # a dot is a hundredth or two
    page.click("#brush-use")
    expect(page, "#brush").to_be_hidden()
    set_length(page, "3")
    start(page)
    wait_for(page, "finished")
    sync_api.expect(page.locator("#after")).to_be_in_viewport()
    assert page.evaluate("document.querySelector('main').firstElementChild.id") == "stage"
    low = page.evaluate("""() => [...document.querySelectorAll("button, .button, select, input[type=number]")]
      .filter((one) => one.offsetParent && one.getBoundingClientRect().height < 44).map((one) => one.outerHTML)""")
    assert low == []  # each can be hit by a finger


def test_each_download_opens(open_page, pictures, tmp_path):
    page = open_page()
    make(page, pictures, "6")
    files = {}
    for link in page.locator("#downloads-links a").all():
        with page.expect_download() as download:
            link.click()
        files[link.inner_text()] = path = tmp_path / download.value.suggested_filename
        download.value.save_as(path)
    assert set(files) >= {"PNG", "JPEG", "TIFF, 16 bits", "Timelapse", "YAML"}
    for name in set(files) & {"PNG", "JPEG", "AVIF"}:
        with Image.open(files[name]) as picture:
            assert (picture.format, picture.size) == (name, (96, 64))
    import tifffile

    assert tifffile.imread(files["TIFF, 16 bits"]).dtype == np.uint16
    with Image.open(files["Timelapse"]) as film:
        assert film.n_frames > 1
    settings = yaml.safe_load(files["YAML"].read_text(encoding="utf-8"))
    assert settings["data"]["content"].endswith("photo.png")
    command = page.inner_text("#command")
    assert re.match(r"nst (fit|stylize) ", command)
    assert "photo.png" in command
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.click("#copy")
    expect(page, "#copy").to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == command


def test_settings_come_back_from_a_file(open_page, pictures, tmp_path):
    page = open_page(allow="422")
    make(page, pictures)
    with page.expect_download() as download:
        page.locator("#downloads-links a", has_text="YAML").click()
    file = tmp_path / "settings.yaml"
    download.value.save_as(file)
    page.click("#new")
    page.fill("#size", "200")
    page.locator("summary").click()
    page.set_input_files("#configuration", str(file))
    expect(page, "#size").to_have_value(SIZE)
    expect(page, "#options").to_contain_text("settings of a file")
    file.write_text("model:\n  feature_extractor:\n    class_path: os.system\n", encoding="utf-8")
    page.set_input_files("#configuration", str(file))
    expect(page, "#error-options").to_be_visible()


def test_a_reload_shows_the_run_again(open_page, pictures):
    page = open_page()
    choose(page, pictures)
    set_length(page, ENDLESS)
    page.locator("#strength").fill("2")
    name = start(page)
    page.locator("#after[src]").wait_for()
    page.reload()
    wait_for(page, "running")
    assert page.url.endswith(f"#{name}")
    watch_pictures(page, 2)
    expect(page, "#strength-said").to_have_text(f"{TIMES} 4")  # the settings are in the form again
    expect(page, "#size").to_have_value(SIZE)
    expect(page, "#styles > li").to_have_count(1)
    page.goto("about:blank")
    page = open_page("")  # a page that asks for nothing is brought to it
    wait_for(page, "running")
    assert page.url.endswith(f"#{name}")


def test_two_tabs_show_the_same_and_the_queue(open_page, pictures):
    first = open_page()
    choose(first, pictures)
    set_length(first, ENDLESS)
    running = start(first)
    second = open_page("")
    wait_for(second, "running")
    assert second.url.endswith(running)
    expect(second, "#stage-title").to_have_text("photo, after painting")  # also where they were not chosen
    second.click("#new")
    expect(second, "#easel").to_be_visible()
    choose(second, pictures)
    set_length(second, "3")
    waiting = start(second)
    expect(second, "#waiting").to_have_text("Next in the queue")
    expect(first, f"#history-list button[data-id='{waiting}']").to_contain_text("Queued, next")
    first.click("#stop")
    for page in (first, second):
        expect(page, f"#history-list button[data-id='{running}']").to_contain_text("Stopped after")
        expect(page, f"#history-list button[data-id='{waiting}']").to_contain_text("Finished: 3 evaluations")
    first.on("dialog", lambda dialog: dialog.accept())
    first.click("#remove")
    for page in (first, second):
        expect(page, "#history-list button").to_have_count(1)
    expect(first, "#easel").to_be_visible()


def test_bad_files_and_settings_are_answered_beside_their_control(open_page, pictures):
    page = open_page(allow="422|413")
    page.click("#start")
    expect(page, "#error-content").to_have_text("Choose a picture and a style.")
    page.set_input_files("#content-file", pictures["bad"])
    expect(page, "#error-content").to_contain_text("bad.png")
    expect(page, "#content-file").to_have_attribute("aria-invalid", "true")
    page.set_input_files("#content-file", pictures["large"])
    expect(page, "#error-content").to_contain_text(f"must have at most {MEGABYTE} MB, got")
    choose(page, pictures)
    expect(page, "#error-content").to_be_hidden()
    page.fill("#size", "3")
    expect(page, "#error-size").to_have_text("Size: must be at least 16, got 3")
    expect(page, "#size").to_have_attribute("aria-invalid", "true")
    page.click("#start")  # where the server says it
    expect(page, "#error-size").to_contain_text("size: ")
    page.fill("#size", SIZE)
    expect(page, "#error-size").to_be_hidden()
    page.select_option("#length", "evaluations")
    page.fill("#length-number", "-4")
    expect(page, "#error-length").to_be_visible()
    page.set_input_files("#styles-file", pictures["bad"])
    expect(page, "#error-styles").to_contain_text("bad.png")
    expect(page, "#error-length").to_be_visible()  # one does not take the other away
    assert "\n" not in page.inner_text("#error-styles")


def test_a_plan_that_was_on_its_way_does_not_take_away_what_start_says(open_page):
    """Settings change, and Start is pressed before the plan of the change is asked for."""
    page = open_page()
    page.evaluate("""() => {
        document.querySelector("#size").dispatchEvent(new Event("input", { bubbles: true }));
        document.querySelector("#start").click();
    }""")
    page.wait_for_timeout(1000)  # more than the page waits before it asks for a plan
    expect(page, "#error-content").to_have_text("Choose a picture and a style.")
    expect(page, "#plan").to_have_text("Choose a picture and a style.")


def test_before_and_after_by_keyboard(open_page, pictures):
    page = open_page()
    make(page, pictures)
    page.focus("#split")
    for _ in range(30):
        page.keyboard.press("ArrowRight")
    expect(page, "#split").to_have_attribute("aria-valuetext", "30 % before")
    page.evaluate("document.getElementById('before').decode()")
    clip = page.evaluate("getComputedStyle(document.getElementById('before')).clipPath")
    assert clip == "inset(0px 70% 0px 0px)"
    expect(page, "#cut").to_be_visible()


def test_all_is_done_by_keyboard(open_page, pictures):
    page = open_page()
    choose(page, pictures)
    set_length(page, "3")
    page.focus("#content-file")
    reached = []
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id"))
        if reached[-1] == "start":
            break
    wanted = [
        "styles-file",
        "preset",
        "size",
        "strength",
        "likeness",
        "stroke_size",
        "keep_colors",
        *(["protect_faces"] if page.is_enabled("#protect_faces") else []),
        "regions",
        "length",
        "length-number",
        "start",
    ]
    assert [name for name in reached if name in wanted] == wanted
    page.keyboard.press("Enter")
    wait_for(page, "finished")


def with_faces(page: Any, *, can_be_found: bool) -> None:
    """Let the server say whether faces can be found there."""

    def answer(route: Any) -> None:
        known = route.fetch().json()
        route.fulfill(json={**known, "faces": {"can_be_found": can_be_found, "reason": "needs the package x"}})

    page.route("**/api/facts", answer)
    page.reload()
    page.locator("#preset option").first.wait_for(state="attached")


def planned(page: Any, action: Callable[[], Any], **wanted: Any) -> None:
    """Do something after which the page asks for a plan with these wishes."""
    with page.expect_request(
        lambda request: (
            request.url.endswith("/api/plan")
            and all(request.post_data_json[name] == value for name, value in wanted.items())
        )
    ):
        action()


def test_likeness_is_the_presets_until_it_is_set(open_page, pictures):
    page = open_page(allow="422")  # the preset's VGG-19 may not be here
    choose(page, pictures)
    expect(page, "#likeness-said").to_have_text("0.5, neutral")
    planned(page, lambda: page.select_option("#preset", "portrait"), preset="portrait", likeness=None)
    expect(page, "#likeness-said").to_have_text("0.85, the preset's own")
    page.focus("#likeness")
    planned(page, lambda: page.keyboard.press("ArrowLeft"), likeness=0.8)
    expect(page, "#likeness").to_have_attribute("aria-valuetext", "0.8")
    planned(page, lambda: page.select_option("#preset", "fast"), preset="fast", likeness=0.8)
    planned(page, lambda: page.locator("#likeness").fill("0.5"), likeness=None)
    planned(page, lambda: page.select_option("#regions", "3"), regions=3)
    planned(page, lambda: page.select_option("#regions", "none"), regions=0)
    planned(page, lambda: page.select_option("#regions", label="as the preset says: none"), regions=None)


def test_likeness_and_regions_come_back_with_their_picture(open_page, pictures):
    page = open_page()
    choose(page, pictures)
    set_length(page, "2")
    page.locator("#likeness").fill("0.7")
    page.select_option("#regions", "2")
    name = start(page)
    wait_for(page, "finished")
    assert re.search(r"Likeness\s+0.7\s", page.inner_text("#settings"))
    assert re.search(r"Regions\s+2\s", page.inner_text("#settings"))
    page.click("#new")
    page.locator("#likeness").fill("0")
    page.select_option("#regions", "none")
    page.click(f"#history-list button[data-id='{name}']")
    expect(page, "#likeness-said").to_have_text("0.7")
    expect(page, "#regions").to_have_value("2")


def test_faces_can_be_protected_where_they_can_be_found(open_page, pictures):
    page = open_page(allow="422")  # the server itself may lack the extra
    with_faces(page, can_be_found=False)
    expect(page, "#protect_faces").to_be_disabled()
    expect(page, "#help-protect_faces").to_have_text("Not possible on this server, since it needs the package x")
    with_faces(page, can_be_found=True)
    choose(page, pictures)
    planned(page, lambda: page.check("#protect_faces"), protect_faces=True, content_mask=None)
    page.click("#content-paint")
    page.click("#brush-fill")
    page.click("#brush-use")
    expect(page, "#protect_faces").to_be_disabled()
    expect(page, "#protect_faces").not_to_be_checked()
    expect(page, "#help-protect_faces").to_contain_text("What you have painted stays clear instead")
    page.click("#content-paint")
    page.click("#brush-whole")
    expect(page, "#protect_faces").to_be_enabled()
    page.select_option("#preset", "texture")
    expect(page, "#protect_faces").to_be_disabled()


def test_a_server_that_finds_no_faces_says_so_beside_them(open_page, pictures):
    page = open_page(allow="422")
    refusal = {"error": "data.content_mask: faces needs the package x", "field": "protect_faces"}
    page.route("**/api/plan", lambda route: route.fulfill(json=refusal, status=422))
    choose(page, pictures)
    expect(page, "#error-protect_faces").to_contain_text("faces needs the package x")
    expect(page, "#protect_faces").to_have_attribute("aria-invalid", "true")


def test_pictures_are_dropped_and_pasted(open_page, pictures):
    page = open_page()
    give = """([selector, type, bytes]) => {
      const data = new DataTransfer();
      data.items.add(new File([new Uint8Array(bytes)], `${type}.png`, { type: "image/png" }));
      const event = type === "paste" ? new ClipboardEvent("paste", { clipboardData: data, bubbles: true })
        : new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true });
      document.querySelector(selector).dispatchEvent(event);
    }"""
    page.evaluate(give, ["#easel", "drop", list(Path(pictures["photo"]).read_bytes())])
    expect(page, "#content-name").to_have_text("drop.png")
    expect(page, "#content-size").to_have_text(f"120 {TIMES} 80 px")
    page.evaluate(give, ["body", "paste", list(Path(pictures["other"]).read_bytes())])
    expect(page, "#content-name").to_have_text("paste.png")
    page.evaluate(give, ["#styles-set", "drop", list(Path(pictures["painting"]).read_bytes())])
    expect(page, "#styles > li").to_contain_text("drop.png")
    expect(page, "#plan").to_contain_text("px")
    assert page.get_attribute("#content-camera", "capture") == "environment"


def test_shipped_styles_are_chosen_and_weighed(open_page, server):
    page = open_page()
    page.click("#content-shipped button")
    expect(page, "#content-shown").to_be_visible()
    first = page.locator("#gallery button").first
    first.click()
    expect(page, "#gallery button >> nth=0").to_have_attribute("aria-pressed", "true")
    expect(page, "#styles .field").to_be_hidden()  # a single style has no weight against others
    set_length(page, "3")
    start(page)
    wait_for(page, "finished")
    assert listed(server)[0]["asked"]["styles"][0]["image"].startswith("demo:")
    first.click()
    expect(page, "#styles > li").to_have_count(0)
    expect(page, "#plan").to_have_text("Choose a style.")


def test_a_lost_connection_is_told_and_mended(open_page, pictures, tmp_path):
    again = [tmp_path / "folder", f"--port={free_port()}"]
    with Server(*again) as first:
        page = open_page(base=first.address, allow="ERR_|Failed to load")
        choose(page, pictures)
        set_length(page, ENDLESS)
        start(page)
        page.locator("#after[src]").wait_for()
        first.end(signal.SIGTERM)
        expect(page, "#connection").to_be_visible()
    with Server(*again):
        expect(page, "#connection").to_be_hidden()
        wait_for(page, "running")  # it goes on where it was
        page.click("#stop")
        wait_for(page, "stopped")


def test_a_token_is_asked_for(open_page, tmp_path):
    with Server(tmp_path / "folder", "--token=sesame-open") as guarded:
        page = open_page("", base=guarded.address, allow="401|ERR_", ready="#token")
        page.fill("#token", "wrong-guess")
        page.keyboard.press("Enter")
        expect(page, "#error-token").to_contain_text("token: must be")
        assert page.locator("#start").count() == 0
        page.fill("#token", "sesame-open")
        page.keyboard.press("Enter")
        page.locator("#preset option").first.wait_for(state="attached")


@pytest.mark.parametrize(
    ("size", "scheme"),
    [
        pytest.param(WIDE, "light", id="wide-light"),
        pytest.param(NARROW, "dark", id="narrow-dark"),
        pytest.param(WIDE, "dark", id="wide-dark", marks=pytest.mark.slow),
        pytest.param(NARROW, "light", id="narrow-light", marks=pytest.mark.slow),
    ],
)
def test_nothing_serious_stands_in_the_way_of_anybody(open_page, pictures, size, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python").Axe()
    page = open_page(size=size, color_scheme=scheme, bypass_csp=True, allow="422")  # for axe's script

    def check(state: str) -> None:
        found = axe.run(page).response["violations"]
        grave = {item["id"]: [node["html"] for node in item["nodes"]] for item in found
                 if item["impact"] in {"serious", "critical"}}  # fmt: skip
        assert grave == {}, state

    check("empty")
    choose(page, pictures, "painting", "other")
    set_length(page, ENDLESS)
    check("before the start")
    page.click("#content-paint")
    page.locator("#brush").wait_for()
    check("while a mask is painted")
    page.click("#brush-cancel")
    start(page)
    page.locator("#after[src]").wait_for()
    check("in a run")
    page.click("#stop")
    wait_for(page, "stopped")
    check("after a run")
    page.fill("#size", "3")
    expect(page, "#error-size").to_be_visible()
    check("with an error")
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]  # nothing to scroll sideways
