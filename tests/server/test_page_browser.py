"""The page in a real browser: what people see and do, with the keyboard too, and what the browser may ask for."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from benchmarks.screenshots import browser, settled
from tests.server.page_project import HOSTILE, RETRIEVER, FakeLive, FakeSystem, examples

pytestmark = [
    pytest.mark.skipif(browser() is None, reason="no Chromium is installed; apt-get install chromium"),
    pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="playwright is not installed"),
]
SECRET = "a" * 20
VIEWS = ("search", "losses", "versions", "data", "cost", "label")


class Site(NamedTuple):
    """A running server: its address, its folder and the data that it shows."""

    url: str
    folder: Path
    dataset: Any


@pytest.fixture(scope="module")
def site(page_registry: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server of a copy of the project, with one token; the systems beside the student are stand-ins."""
    import uvicorn

    from rabtriever.data.beir_io import load_dataset
    from rabtriever.ops import registry
    from rabtriever.ops.lookup import Found
    from rabtriever.server import systems
    from rabtriever.server.app import create_app
    from rabtriever.server.backend import Backend
    from rabtriever.server.settings import ServeSettings, Token
    from rabtriever.server.versions import Wanted

    folder = tmp_path_factory.mktemp("site") / "project"
    shutil.copytree(page_registry, folder)
    dataset = load_dataset(folder / "data/prepared")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.chdir(folder)
        patch.setattr(systems, "_bm25", lambda *_: FakeSystem(dataset, "bm25"))
        patch.setattr(systems._LiveBiEncoder, "open", lambda *_: FakeSystem(dataset, "biencoder"))
        patch.setattr(systems._LiveTeacher, "open", lambda *_: FakeSystem(dataset, "teacher"))
        patch.setattr(registry, "check_answers", lambda version: None)
        backend = Backend(
            ServeSettings(tokens=(Token("ann", SECRET, True),)),
            look=lambda name: Wanted(Found(folder, "3"), RETRIEVER),
            load=lambda wanted, changes: FakeLive(dataset),
        )
        app = create_app(backend, backend.settings)
        server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.05)
        yield Site(f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/", folder, dataset)
        server.should_exit = True
        thread.join(20)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=browser(), args=["--no-sandbox"])
        yield opened
        opened.close()


class Watched(NamedTuple):
    """A page, what it has asked for, and what went wrong in it."""

    page: Any
    requests: list[str]
    errors: list[str]


@pytest.fixture
def watched(chromium: Any, site: Site, tmp_path: Path) -> Iterator[Watched]:
    """A wide page of the server with its token; at the end, nothing outside was asked for and nothing went wrong."""
    with watching(chromium, site.url) as found:
        found.page.goto(site.url)
        found.page.fill("#token", SECRET)
        found.page.click("text=Use it")
        found.page.wait_for_selector("#query")
        yield found
    check_watched(found, site.url)


@contextlib.contextmanager
def watching(chromium: Any, start: str, **how: Any) -> Iterator[Watched]:
    """A page whose requests and errors are kept."""
    context = chromium.new_context(viewport={"width": 1300, "height": 900}, **how)
    page = context.new_page()
    page.set_default_timeout(60_000)
    requests: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    yield Watched(page, requests, errors)
    context.close()


def check_watched(found: Watched, start: str) -> None:
    """No script failed, and every request went to the server itself."""
    assert not [error for error in found.errors if "status of 401" not in error]  # which asks for the token
    assert not [url for url in found.requests if not url.startswith((start, "data:"))]


def go(watched: Watched, site: Site, address: str) -> Any:
    """The page at an address of its own, when everything is there."""
    watched.page.goto(site.url + address)
    settled(watched.page)
    return watched.page


def test_a_search_shows_four_rankings_and_the_parts_of_a_score(watched: Watched, site: Site):
    """The reason to open the page: who ranks what where, and why."""
    query_id = examples(site.dataset)[0]
    page = go(watched, site, f"#/search?q={site.dataset.queries[query_id]}")
    page.wait_for_selector(".column.teacher .hit")
    assert [
        len(page.query_selector_all(f".column.{name} .hit")) for name in ("bm25", "biencoder", "student", "teacher")
    ] == [10] * 4
    best = list(FakeLive(site.dataset).scores(site.dataset.queries[query_id]))[0]
    assert page.query_selector(".column.student li").get_attribute("data-document") == best
    relevant = set(site.dataset.qrels["test"][query_id])
    shown = {one.get_attribute("data-document") for one in page.query_selector_all(".column.student li.relevant")}
    assert shown and shown <= relevant
    assert len(page.query_selector_all(".join")) > 3
    page.click(".column.student .hit")
    page.wait_for_selector(".parts")
    assert f"hit={best}" in page.url, "a document that is open has an address"
    values = [float(one.inner_text().replace("−", "-")) for one in page.query_selector_all(".parts .number")]
    total = FakeLive(site.dataset).scores(site.dataset.queries[query_id])[best]
    assert sum(values) == pytest.approx(total, abs=0.03)
    page.click(".detail .close")
    page.wait_for_selector(".detail", state="detached")


def test_a_text_with_html_is_a_text(watched: Watched, site: Site):
    """A document is never trusted: no element of it gets into the page, no script of it runs."""
    query_id = next(iter(site.dataset.qrels["test"]))
    for address in (f"#/losses?query={query_id}", f"#/search?q={'%3Cimg src=x onerror=alert(1)%3E'}", "#/losses"):
        page = go(watched, site, address)
        assert page.query_selector("main img") is None and page.query_selector("main script") is None
        assert page.title().endswith("rabtriever")
    page = go(watched, site, f"#/losses?query={query_id}")
    assert HOSTILE in page.inner_text("#compared h3")


def test_every_selection_has_an_address(watched: Watched, site: Site):
    """A link that somebody sends shows what they saw; going back goes back."""
    page = go(watched, site, "#/losses")
    page.select_option("select >> nth=1", "bm25")
    page.click("text=Unseen document")
    page.click(".queries li a >> nth=0")
    page.wait_for_selector("#compared .columns")
    address, heading = page.url, page.inner_text("#compared h3")
    assert "b=bm25" in address and "filter=unseen" in address and "query=" in address
    other = page.context.new_page()
    other.goto(address)
    other.fill("#token", SECRET)
    other.click("text=Use it")
    other.wait_for_selector("#compared .columns")
    assert other.inner_text("#compared h3") == heading
    assert other.get_attribute("text=Unseen document", "aria-pressed") == "true"
    other.close()
    page.go_back()
    page.wait_for_selector("#compared .empty")


def test_wins_and_losses_count_as_the_run_does(watched: Watched, site: Site):
    """The sentence above the picture is read by managers."""
    from rabtriever.server.page_data import losses
    from rabtriever.server.project import Project

    rows = losses(Project(site.folder).finished())["queries"]
    differences = [row["values"]["student"] - row["values"]["biencoder"] for row in rows]
    page = go(watched, site, "#/losses")
    wins, lost = sum(one > 0 for one in differences), sum(one < 0 for one in differences)
    assert f"Student wins {wins}, ties {len(rows) - wins - lost} and loses {lost}" in page.inner_text(".summary")
    assert f"{100 * sum(differences) / len(rows):+.1f} points" in page.inner_text(".summary").replace("−", "-")
    page.click("text=First place lost")
    page.wait_for_function("document.querySelector('.summary').textContent.includes(' of ')")
    lost_first = sum(row["first"]["biencoder"] > 0 and not row["first"]["student"] > 0 for row in rows)
    assert len(page.query_selector_all(".chart .bar")) == lost_first


def test_calibration_is_drawn_bin_by_bin(watched: Watched, site: Site):
    """A promise that is not kept stays unseen."""
    from rabtriever.server.project import Project

    found = Project(site.folder).finished().evaluation["calibration"]
    page = go(watched, site, "#/cost")
    chart = page.wait_for_selector("svg[aria-label^='Share of right hits']")
    told = [title.text_content() for title in chart.query_selector_all("circle title")]
    assert [int(one.split(" ")[0].replace(",", "")) for one in told] == [one["hits"] for one in found["bins"]]
    assert f"Brier score {found['brier']:.3f}" in page.inner_text("figcaption >> text=promise")
    y = [float(dot.get_attribute("cy")) for dot in chart.query_selector_all("circle")]
    right = [one["right"] for one in found["bins"]]
    assert [one - y[0] for one in y] == pytest.approx([282 * (right[0] - one) for one in right], abs=0.5)


def test_the_keyboard_is_enough(watched: Watched, site: Site):
    """Nobody needs a mouse."""
    page = go(watched, site, "#/search")
    page.focus("#tab-search")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("#tab-losses[aria-selected=true]")
    assert page.evaluate("document.activeElement.id") == "tab-losses"
    page.keyboard.press("End")
    page.wait_for_selector("#tab-label[aria-selected=true]")
    page.keyboard.press("Home")
    page.wait_for_selector("#tab-search[aria-selected=true]")
    page.wait_for_selector("#query")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "query"
    page.keyboard.type("a/b is a query")
    page.keyboard.press("Enter")
    page.wait_for_selector(".column.teacher .hit")
    page.focus(".column.student .hit >> nth=1")
    page.keyboard.press("Enter")
    page.wait_for_selector(".detail")
    assert page.evaluate("document.activeElement.dataset.key").startswith("hit-student-"), "the focus stays"


def test_a_label_is_kept(watched: Watched, site: Site):
    """Line by line, with who said so."""
    page = go(watched, site, "#/label?q=something to label")
    page.click(".judge li >> nth=0 >> text=Helps")
    page.wait_for_selector(".judge .thumb[aria-pressed=true]")
    page.wait_for_function("document.querySelector('.said').textContent === 'kept'")
    last = (site.folder / "labels/labels.tsv").read_text().splitlines()[-1].split("\t")
    assert last[2:4] == ["1", "ann"] and last[5:] == ["3", "something to label"]
    page = go(watched, site, "#/label")
    page.reload()
    page.wait_for_selector(".kept li")
    assert "something to label" in page.inner_text(".kept li")


def test_promote_needs_a_reason_and_a_confirmation(watched: Watched, site: Site):
    """A click alone changes nothing; the reason is on the version afterwards."""
    from rabtriever.ops import registry

    page = go(watched, site, "#/versions?version=4")
    page.click("[data-key=promote-4]")
    page.click("dialog >> text=Cancel")
    page.click("[data-key=promote-4]")
    page.click("dialog button[type=submit]")  # no reason yet: the browser asks for one
    assert page.query_selector("dialog[open]") is not None and registry.champion().version == "3"
    page.fill("#reason", "the shop needs it")
    page.click("dialog button[type=submit]")
    page.wait_for_selector("dialog", state="detached")
    page.wait_for_selector(".card.champion >> text=the shop needs it")
    assert registry.champion().version == "4"
    registry.rollback("3")


@pytest.mark.parametrize(("scheme", "width"), [("light", 1300), ("dark", 1300), ("light", 400)])
def test_axe_finds_nothing_serious(chromium: Any, site: Site, scheme: str, width: int):
    """Contrast, names, roles, structure, in every view; and nothing is wider than the page."""
    from axe_playwright_python.sync_playwright import Axe

    query = site.dataset.queries[examples(site.dataset)[0]]
    addresses = {"search": f"#/search?q={query}", "losses": f"#/losses?query={examples(site.dataset)[0]}"}
    addresses |= {"versions": "#/versions?version=5", "label": f"#/label?q={query}"}
    with watching(chromium, site.url, color_scheme=scheme) as found:
        page = found.page
        page.set_viewport_size({"width": width, "height": 900})
        page.add_init_script(f"sessionStorage.setItem('rabtriever-token', '{SECRET}')")
        for view in VIEWS:
            page.goto(site.url + addresses.get(view, f"#/{view}"))
            settled(page)
            if view == "search":
                page.click(".column.student .hit")
                page.wait_for_selector(".parts")
            response = Axe().run(page).response
            worst = [one for one in response["violations"] if one["impact"] in ("serious", "critical")]
            told = [(one["id"], one["nodes"][0]["html"], one["nodes"][0]["failureSummary"]) for one in worst]
            assert not told, f"{view}: {told}"
            assert page.evaluate("document.documentElement.scrollWidth") <= width, view
    check_watched(found, site.url)


def test_the_file_works_without_a_server(chromium: Any, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The same views, the recorded queries in the search, and not one request."""
    from rabtriever.cli.main import main

    monkeypatch.chdir(site.folder)
    target = tmp_path / "result.html"
    assert main(["report", str(target)]) == 0
    start = target.as_uri()
    query_id = examples(site.dataset)[1]
    with watching(chromium, start) as found:
        page = found.page
        for view, sign in zip(VIEWS, (".search", ".queries", ".card", ".tile", ".chart", ".note"), strict=True):
            page.goto(f"{start}#/{view}")
            page.wait_for_selector(sign)
        page.goto(f"{start}#/search?q={site.dataset.queries[query_id]}")
        page.wait_for_selector(".column.teacher .hit")
        assert len(page.query_selector_all(".column .hit")) == 40
        page.click(".column.student .hit")
        page.wait_for_selector(".detail .places")
        page.fill("#query", "cold")
        page.wait_for_selector(".examples a, .examples .hint")
        page.goto(f"{start}#/losses?query={next(iter(site.dataset.qrels['test']))}")
        page.wait_for_selector("#compared h3")
        assert HOSTILE in page.inner_text("#compared h3") and page.query_selector("main img") is None
    assert not found.errors
    assert {url.partition("#")[0] for url in found.requests if not url.startswith("data:")} == {start}


def test_without_a_token_nothing_is_shown(chromium: Any, site: Site):
    """A wrong token is told as such."""
    with watching(chromium, site.url) as found:
        found.page.goto(site.url)
        found.page.fill("#token", "wrong" * 5)
        found.page.click("text=Use it")
        found.page.wait_for_selector("text=unknown token")
        assert found.page.query_selector("#query") is None
