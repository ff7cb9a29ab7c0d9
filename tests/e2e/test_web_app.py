"""The unmodified web apps of IOPaint and Lama Cleaner in a browser, LCQ behind it: what users do, and what they see."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from lcq.config import ModelsConfig
from lcq.embedded import PrivateServer
from tests.cluster import free_port, running_cluster
from tests.conftest import wait_until_sync
from tests.weight_files import safetensors
from worker.weights import WeightStore

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Request, Response
    from playwright.sync_api._context_manager import EventInfo

ROOT = Path(__file__).parents[2]
APPS = ROOT / ".web-app"
APP, OLDER_APP = APPS / "iopaint" / "web_app", APPS / "lama_cleaner" / "app" / "build"
BROWSER = os.environ.get("LCQ_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or ""
SCREENSHOTS = ROOT / "docs" / "http" if os.environ.get("LCQ_SCREENSHOTS") else None
PHOTOS = ROOT / "sample-config" / "photos"
PATIENCE_MS = 120_000

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not BROWSER, reason="there is no Chromium here: run make e2e, or name one by LCQ_CHROMIUM"),
    pytest.mark.skipif(not (APPS / ".unpacked").exists(), reason="the web apps are not here: run make e2e"),
]


@contextmanager
def serving(app: Path, folder: Path, *, agents: int) -> Iterator[str]:
    """The address of a scheduler that serves ``app``; its agents have cv2 and a LaMa of random weights."""
    port = free_port()
    with np.load(ROOT / "tests" / "data" / "lama" / "small_weights.npz") as arrays:
        weights = safetensors(folder / "small.safetensors", dict(arrays))
    WeightStore(folder / "c" / "models", ModelsConfig(allow=("any",))).add(weights, "lama")
    around = {
        "LCQ_HTTP__ENABLED": "1", "LCQ_HTTP__WEB_APP": str(app), "LCQ_HTTP__MODEL": "cv2",
        "LCQ_SCHEDULER_PORT": str(port), "LCQ_DISCOVERY__ENABLED": "0",
        "LCQ_AGENT__MODELS": '["cv2-telea", "cv2-ns", "lama"]',
        "LCQ_MODELS__ALLOW": '["any"]', "LCQ_STORAGE__BLOBS__FLOOR_MIB": "0", "LCQ_AGENT__DISK__FLOOR_MIB": "0",
    }  # fmt: skip
    with PrivateServer(folder / "redis") as server, running_cluster(server.url, folder / "c", **around) as cluster:
        cluster.start_scheduler()
        for number in range(agents):
            cluster.start_agent(f"node-{number}", slots=1)
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(APP, tmp_path_factory.mktemp("cluster"), agents=2) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


_READ = """async url => {
  const blob = await (await fetch(url)).blob();
  return await new Promise(done => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.readAsDataURL(blob);
  });
}"""


@dataclass(frozen=True)
class Waiting:
    """An answer that is to come, and the page's look at the picture in it."""

    answered: EventInfo[Response]
    looked_at: EventInfo[Request]


class User:
    """Somebody with a browser of their own: what it holds, and all that went wrong in it."""

    def __init__(self, browser: Browser, address: str) -> None:
        self._context = browser.new_context(viewport={"width": 1200, "height": 800})
        self.page: Page = self._context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.wrong: list[str] = []
        self.page.on("pageerror", lambda error: self.wrong.append(f"{error}"))
        self.page.on("response", self._judge)
        self._pictures: set[str] = set()
        self.page.on("request", lambda request: self._pictures.add(request.url))
        self.page.goto(address + "/")
        self.page.wait_for_selector("input[type=file]", state="attached")

    def _judge(self, answer: Response) -> None:
        if answer.status >= 400:
            self.wrong.append(f"{answer.status} for {answer.request.method} {answer.url}")

    def close(self) -> None:
        self._context.close()

    def pictures(self) -> set[str]:
        """What the page has looked at."""
        self.page.wait_for_timeout(20)  # what has happened meanwhile is told while one waits
        return set(self._pictures)

    def new_picture(self, known: set[str]) -> str:
        """One that it had not looked at then; "": none."""
        return next((url for url in self.pictures() - known if url.startswith("blob:")), "")

    def uploads(self, name: str, data: bytes) -> None:
        kind = "image/png" if name.endswith(".png") else "image/jpeg"
        with self.page.expect_response("**/api/v1/gen-info"):
            self.page.locator("input[type=file]").first.set_input_files(
                [{"name": name, "mimeType": kind, "buffer": data}]
            )
        width, height = Image.open(io.BytesIO(data)).size
        self.page.get_by_text(f"{width}x{height}", exact=True).wait_for()
        self.page.wait_for_function(
            "([w, h]) => [...document.querySelectorAll('canvas')].some(one => one.width === w && one.height === h)",
            arg=[width, height],
        )

    def strokes(self, begin: tuple[float, float], end: tuple[float, float]) -> None:
        """Draw from one place to another, as shares of the picture; whoever lets go of the mouse has asked."""
        box = self.page.locator("canvas").last.bounding_box()
        assert box is not None
        mouse = self.page.mouse

        def at(place: tuple[float, float]) -> tuple[float, float]:
            return box["x"] + place[0] * box["width"], box["y"] + place[1] * box["height"]

        mouse.move(*at(begin))
        mouse.down()
        mouse.move(*at(end), steps=6)
        mouse.up()

    def cleans(self, begin: tuple[float, float], end: tuple[float, float]) -> Cleaned:
        with self.waits() as waiting:
            self.strokes(begin, end)
        return self.sees(waiting)

    @contextmanager
    def waits(self) -> Iterator[Waiting]:
        """For an answer, and until the page looks at the picture in it, which browsers give nobody else."""
        known = set(self._pictures)
        with (
            self.page.expect_request(
                lambda request: request.url.startswith("blob:") and request.url not in known
            ) as looked_at,
            self.page.expect_response("**/api/v1/inpaint") as answered,
        ):
            yield Waiting(answered, looked_at)

    def sees(self, waiting: Waiting) -> Cleaned:
        """Wait until the page shows just the picture that was the answer."""
        cleaned = Cleaned(waiting.answered.value, self.page.evaluate(_READ, waiting.looked_at.value.url))
        found = self.page.evaluate_handle("() => document.querySelector('canvas')")
        wanted = cleaned.pixels

        def is_shown() -> bool:
            url: str = found.evaluate("one => one.toDataURL('image/png')")
            shown = pixels_of(base64.b64decode(url.partition(",")[2]))[..., :3]
            return shown.shape == wanted.shape and np.abs(shown.astype(int) - wanted).max() <= 3  # of colour management

        wait_until_sync(is_shown, what="the result on the page")
        return cleaned

    def chooses(self, model: str, *, pictured: str = "") -> None:
        """By the dialog of settings, of which a screenshot may be made."""
        self.page.locator("header button").last.click()
        dialog = self.page.get_by_role("dialog", name="Settings")
        dialog.get_by_text(model, exact=True).last.click()
        if pictured:
            self.pictured(pictured)
        with self.page.expect_response("**/api/v1/model") as switched:
            dialog.get_by_role("button", name="Ok").click()
        assert (switched.value.status, switched.value.json()["name"]) == (200, model)
        dialog.wait_for(state="detached")
        self.page.wait_for_function("getComputedStyle(document.body).pointerEvents !== 'none'")
        self.page.get_by_text(f"Switch to {model} success").first.wait_for()

    def has_seen_no_error(self) -> None:
        toasts = self.page.locator("[role=region] ol li").all_inner_texts()
        assert [text for text in toasts if re.search("error|failed|wrong", text, re.IGNORECASE)] == []
        assert self.wrong == []

    def pictured(self, name: str) -> None:
        if SCREENSHOTS is not None:
            self.page.screenshot(path=SCREENSHOTS / name)


class Cleaned:
    """An answer, and what was asked for."""

    def __init__(self, answer: Response, shown: str) -> None:
        """``shown``: the data URL of the picture in it."""
        assert answer.status == 200, answer.status_text
        self.kind = answer.headers["content-type"]
        assert shown.startswith(f"data:{self.kind};")
        self.pixels = pixels_of(_bytes(shown))[..., :3]
        asked = _asked(answer.request)
        self.image = pixels_of(_bytes(asked["image"]))[..., :3]
        self.mask = pixels_of(_bytes(asked["mask"]))[..., 3] > 0
        self.radius = asked["cv2_radius"]

    def is_of(self, pixels: NDArray[Any]) -> bool:
        """Whether that picture was sent, and what came back is what OpenCV makes of it."""
        holes = self.mask.astype(np.uint8) * 255
        filled = cv2.inpaint(np.ascontiguousarray(pixels[..., ::-1]), holes, self.radius, cv2.INPAINT_NS)[..., ::-1]
        expected = np.where(self.mask[..., None], filled, pixels)
        if self.kind == "image/jpeg":
            out = io.BytesIO()
            Image.fromarray(expected).save(out, format="JPEG", quality=100, subsampling="4:2:0")
            expected = pixels_of(out.getvalue())
        return np.array_equal(self.image, pixels) and np.array_equal(self.pixels, expected)


def _asked(request: Request) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(request.post_data_buffer or b"{}")
    return found


def _bytes(url: str) -> bytes:
    return base64.b64decode(url.rpartition(",")[2])


def pixels_of(data: bytes) -> NDArray[Any]:
    return np.asarray(Image.open(io.BytesIO(data)))


def a_photo(name: str, kind: str) -> bytes:
    out = io.BytesIO()
    with Image.open(PHOTOS / name) as picture:
        picture.convert("RGB").save(out, format=kind, quality=95)
    return out.getvalue()


@pytest.fixture
def comes(browser: Browser, address: str) -> Iterator[Callable[[], User]]:
    """Somebody opens the app."""
    with ExitStack() as stack:

        def come() -> User:
            user = User(browser, address)
            stack.callback(user.close)
            return user

        yield come


def test_a_png_and_a_jpeg_are_cleaned_by_two_strokes_each(comes: Callable[[], User]) -> None:
    user = comes()
    user.pictured("1-opened.png")
    for name, kind in (("coffee.jpg", "PNG"), ("rocket.jpg", "JPEG")):
        data = a_photo(name, kind)
        user.uploads(f"{name[:-4]}.{kind.lower()}", data)
        first = user.cleans((0.2, 0.3), (0.45, 0.35))
        assert first.kind == f"image/{kind.lower()}"
        assert first.is_of(pixels_of(data))
        second = user.cleans((0.55, 0.7), (0.6, 0.85))
        assert second.is_of(first.pixels), "the second stroke is on what the first one left"
        assert not (second.mask & first.mask).any()
        user.pictured(f"2-{kind.lower()}.png")
    user.has_seen_no_error()


def test_a_model_is_switched_for_oneself_alone(comes: Callable[[], User]) -> None:
    one, other = comes(), comes()
    data = a_photo("coffee.jpg", "PNG")
    one.uploads("coffee.png", data)
    one.chooses("lama", pictured="3-models.png")
    cleaned = one.cleans((0.2, 0.3), (0.4, 0.35))
    assert not cleaned.is_of(pixels_of(data)), "that was cv2"
    np.testing.assert_array_equal(cleaned.pixels[~cleaned.mask], pixels_of(data)[~cleaned.mask])
    other.uploads("coffee.png", data)
    assert other.cleans((0.2, 0.3), (0.4, 0.35)).is_of(pixels_of(data)), "others have what they had"
    one.chooses("cv2")
    assert one.cleans((0.6, 0.6), (0.7, 0.65)).is_of(cleaned.pixels)
    for user in (one, other):
        user.has_seen_no_error()


def test_four_at_once_each_get_their_own_pictures_back(comes: Callable[[], User]) -> None:
    names = ("coffee.jpg", "rocket.jpg", "astronaut.jpg", "hubble.jpg")
    users = [comes() for _ in names]
    before = [a_photo(name, "PNG") for name in names]
    for user, name, data in zip(users, names, before, strict=True):
        user.uploads(f"{name[:-4]}.png", data)
    shown = [pixels_of(data) for data in before]
    for stroke in range(3):
        place = 0.2 + 0.2 * stroke
        with ExitStack() as stack:
            answers = [stack.enter_context(user.waits()) for user in users]
            for user in users:
                user.strokes((place, 0.3), (place + 0.12, 0.5))
        for at, (user, answer) in enumerate(zip(users, answers, strict=True)):
            cleaned = user.sees(answer)
            assert cleaned.is_of(shown[at]), f"stroke {stroke} of {names[at]}"
            shown[at] = cleaned.pixels
    for user in users:
        user.has_seen_no_error()
    if SCREENSHOTS is not None:
        sheet = Image.new("RGB", (1200, 800))
        for at, user in enumerate(users):
            picture = Image.open(io.BytesIO(user.page.screenshot())).convert("RGB").resize((600, 400))
            sheet.paste(picture, (at % 2 * 600, at // 2 * 400))
        sheet.save(SCREENSHOTS / "4-four-users.png", optimize=True)


def test_the_app_of_lama_cleaner_works_too(browser: Browser, tmp_path: Path) -> None:
    data = a_photo("coffee.jpg", "PNG")
    before = pixels_of(data)
    with serving(OLDER_APP, tmp_path, agents=1) as address:
        user = User(browser, address)
        upload = {"name": "coffee.png", "mimeType": "image/png", "buffer": data}
        user.page.locator("input[type=file]").first.set_input_files([upload])
        user.page.get_by_text("600x400", exact=True).wait_for()
        for begin, end in (((0.2, 0.3), (0.45, 0.35)), ((0.55, 0.7), (0.6, 0.85))):
            known = user.pictures()
            with user.page.expect_response("**/inpaint") as answered:
                wait_until_sync(lambda: user.page.locator("canvas").count() > 0, what="a canvas")
                user.strokes(begin, end)
            assert (answered.value.status, answered.value.headers["content-type"]) == (200, "image/png")
            wait_until_sync(partial(user.new_picture, known), what="the page's look at the answer")
            after = pixels_of(_bytes(user.page.evaluate(_READ, user.new_picture(known))))[..., :3]
            height, width = before.shape[:2]
            (left, top), (right, bottom) = ((int(x * width), int(y * height)) for x, y in (begin, end))
            stroke = np.zeros((height, width), bool)
            stroke[top - 40 : bottom + 40, left - 40 : right + 40] = True
            np.testing.assert_array_equal(after[~stroke], before[~stroke])
            assert (after[stroke] != before[stroke]).any(axis=-1).mean() > 0.05
            before = after
        user.pictured("5-lama-cleaner.png")
        user.has_seen_no_error()
        user.close()
