"""The explorer's pages: what they tell is what the model answers, names stay names, strangers are sent away."""

import dataclasses
import io
import re
import signal
import threading
import urllib.request

import numpy as np
import pytest
from command_runner import assert_one_error, run_process, start
from strange_names import SCRIPT

pytest.importorskip("jinja2")
pytest.importorskip("starlette")
pytest.importorskip("python_multipart")
pytest.importorskip("httpx")

from starlette.testclient import TestClient

from mocme_jax.explorer import seen
from mocme_jax.explorer.server import MOST_UPLOADED, Explored, listen, make_app, serve
from mocme_jax.serving.name_lookup import Lookup

Image = pytest.importorskip("PIL.Image")


def png(colour="red") -> bytes:
    written = io.BytesIO()
    Image.new("RGB", (12, 8), colour).save(written, "PNG")
    return written.getvalue()


@pytest.fixture
def explored(model, tmp_path):
    """The tiny model, an entity of which has a script for a name, and a picture of entity 3."""
    names = list(model.entities.names)
    names[7] = SCRIPT
    odd = dataclasses.replace(model, entities=Lookup("entity", names))
    picture = tmp_path / "3.png"
    picture.write_bytes(png())
    uploads = tmp_path / "uploads"
    uploads.mkdir()
    return Explored(odd, {3: [picture]}, uploads)


@pytest.fixture
def client(explored):
    return TestClient(make_app(explored, can_add=("text", "image")), base_url="http://127.0.0.1")


def text_of(answer) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", answer.text))


def test_answers_are_the_models(client, model):
    for way, given in (("tail", {"head": 4}), ("head", {"tail": 4})):
        page = client.get("/answers", params={"entity": 4, "relation": 1, "way": way})
        assert page.status_code == 200
        wanted = model.complete(**given, relation=1, k=seen.ANSWERS)
        assert re.findall(r'<td class="text"><a class="who" href="/entity/(\d+)"', page.text) == [
            str(answer.id) for answer in wanted
        ]
        probable = [answer.probability for answer in wanted if answer.known == "new"]
        shown = [
            float(share) / 100
            for share in re.findall(r"<td>&lt;?([\d.]+)%</td>|<td>([\d.]+)%</td>", page.text)
            for share in share
            if share
        ]
        np.testing.assert_allclose(shown, probable, atol=1e-3)
        known = [answer.known for answer in wanted if answer.known != "new"]
        assert re.findall(r"in (train|valid|test)<", page.text) == known


def test_an_entitys_page_tells_its_triples(client, model):
    page = client.get("/entity/4")
    told = re.findall(r"/why\?head=(\d+)&amp;relation=(\d+)&amp;tail=(\d+)", page.text)
    wanted = [
        row
        for split in model.served.facts.splits.values()
        for row in np.asarray(split).tolist()
        if 4 in (row[0], row[2])
    ]
    assert sorted(tuple(map(int, row)) for row in told) == sorted(map(tuple, wanted))
    assert len(wanted) > 2


def test_reasons_are_the_explanations(client, model):
    told = model.explain((4, 1, 9))
    page = text_of(client.get("/why", params={"head": 4, "relation": 1, "tail": 9}))
    for name, without in told.without.items():
        assert f"{name} {told.score - without:+.3f}".replace("-", "−") in page
    # The explored model has another name for entity 7.
    same = [near for near in told.nearest if "place 7" not in (near.head, near.tail)]
    assert len(same) >= 3
    for near in same:
        assert f"{near.head} {near.relation} {near.tail}" in page


def test_names_are_found_whole_before_beginnings_before_parts(model):
    names = ["xab", "ab", "abc", "AB", "b", *map(str, model.entities.names[5:])]
    named = dataclasses.replace(model, entities=Lookup("entity", names))
    assert seen.found(named, " Ab ")[:4] == [1, 3, 2, 0]
    assert seen.found(named, "") == seen.found(named, "zzz") == []


def test_names_are_not_run(client):
    for page in (
        client.get("/", params={"name": "script"}),
        client.get("/entity/7"),
        client.get("/", params={"name": SCRIPT}),
    ):
        assert page.status_code == 200
        assert "&lt;/script" in page.text
        assert "<script" not in page.text
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert page.headers["x-content-type-options"] == "nosniff"


def test_what_is_not_there(client):
    for place in ("/entity/48", "/entity/-1", "/entity/x", "/entity/%C2%B2", "/picture/4", "/answers", "/nothing",
                  "/answers?entity=1&relation=99", "/why?head=1&relation=0", "/entity/" + "9" * 5000):  # fmt: skip
        page = client.get(place)
        assert page.status_code == 404, place
        assert "Traceback" not in page.text
    assert client.post("/entity/1").status_code == 405


def test_another_hosts_name_is_refused(client):
    assert client.get("/", headers={"host": "evil.example"}).status_code == 400
    assert client.get("/", headers={"host": "localhost:8765"}).status_code == 200


def test_pictures_leave_what_they_hold_beside_pixels_behind(client, explored):
    exif = Image.Exif()
    exif[0x010E] = "a secret place"
    Image.new("RGB", (900, 30)).save(explored.pictures[3][0], "JPEG", exif=exif)
    answer = client.get("/picture/3")
    assert answer.headers["content-type"] == "image/png"
    assert b"secret" not in answer.content
    assert Image.open(io.BytesIO(answer.content)).size[0] == 256
    explored.pictures[3][0].write_bytes(b"no image")
    assert client.get("/picture/3").status_code == 404


def test_an_entity_is_added_and_asked_about(client, explored, monkeypatch):
    calls = []

    def add_entities(model, names, features):
        calls.append((names, features, features["image"][0].read_bytes()))
        return original(model, names, {})

    original = type(explored.model).add_entities
    monkeypatch.setattr(type(explored.model), "add_entities", add_entities)
    form = {"name": " a  new\none ", "text": "a text"}
    answer = client.post("/add", data=form, files={"picture": ("../../x.png", png("blue"))}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/entity/48")
    (names, features, written), *others = calls
    assert (names, features["text"], written, others) == (["a new one"], ["a text"], png("blue"), [])
    assert "a new one" in text_of(client.get("/entity/48"))
    assert client.get("/picture/48").status_code == 200
    assert client.get("/answers", params={"entity": 48, "relation": 0}).status_code == 200


def test_what_cannot_be_added_is_told_and_kept_in_the_form(client, explored):
    for form, told in (
        ({"name": "", "text": "x"}, "give the entity a name"),
        ({"name": "new", "text": " "}, "give a picture or a text"),
        ({"name": explored.model.entities.names[0], "text": "x"}, "already exists"),
        ({"name": "new", "text": "x"}, "does not name its encoder"),
    ):
        answer = client.post("/add", data=form, files={"picture": ("", b"")})
        assert answer.status_code == 400
        assert told in answer.text
    assert 'value="new"' in answer.text
    assert len(explored.model.entities) == 48


def test_a_model_that_takes_no_raw_values_has_no_form(explored):
    client = TestClient(make_app(explored, can_add=()), base_url="http://127.0.0.1")
    assert client.get("/add").status_code == client.post("/add", data={"name": "a"}).status_code == 404
    assert "/add" not in client.get("/").text


def test_forms_of_other_pages_and_large_ones_are_refused(client):
    form = {"name": "a", "text": "b"}
    assert client.post("/add", data=form, headers={"sec-fetch-site": "cross-site"}).status_code == 403
    assert client.post("/add", data=form, headers={"content-length": str(MOST_UPLOADED + 1)}).status_code == 413


@pytest.mark.slow
def test_the_command_serves_until_ctrl_c_and_says_no_more(tiny_run, tmp_path):
    process = start("explore", f"--workdir={tiny_run}", "--port=0", folder=tmp_path)
    line = next(iter(process.stdout.readline, ""))
    while not line.startswith("http"):
        line = process.stdout.readline()
    port = int(re.search(r":(\d+)/", line)[1])
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"http://127.0.0.1:{port}/") as page:
        assert b"place" in page.read()
    taken = run_process("explore", f"--workdir={tiny_run}", f"--port={port}", folder=tmp_path)
    assert_one_error(taken.returncode, taken.stderr, f"port {port} cannot be used", "--port")
    assert taken.stdout == ""
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "", "")


@pytest.mark.slow
def test_in_a_browser(explored):
    from browser import chromium

    app, listening = make_app(explored, can_add=("text", "image")), listen(0)
    threading.Thread(target=serve, args=(app, listening), daemon=True).start()
    home = f"http://127.0.0.1:{listening.getsockname()[1]}"
    with chromium() as browser:
        for place in (
            "/",
            "/?name=place",
            "/entity/3",
            "/entity/7",
            "/answers?entity=3&relation=1&way=head",
            "/why?head=3&relation=1&tail=7",
            "/add",
        ):
            for width, dark in ((390, False), (1280, True)):
                measured = browser.look(f"{home}{place}", width=width, dark=dark)
                assert measured["scroll"] <= 0, (place, width)
                assert measured["out"] == [], (place, width)
                assert measured["console"] == [], (place, width)
                assert all(url.startswith(home) for url in measured["requests"])
                assert measured["scripts"] == 0
                paper = sum(map(int, re.findall(r"\d+", measured["paper"])[:3]))
                assert paper < 150 if dark else paper > 700
        browser.look(f"{home}/entity/3", width=1280)
        assert browser.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
