"""The explorer's server: pages of a trained model, made by Starlette for browsers of this computer alone.

Nothing that a graph, a query or an upload holds is run or put into a page unescaped. The server answers to its own
name alone, so that no page from elsewhere can read it by a name that leads here, and takes forms from its own pages
alone.
"""

from __future__ import annotations

import contextlib
import socket
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mocme_jax.data.features.entity_files import entity_files
from mocme_jax.data.media.pictures import read_image, small_png
from mocme_jax.errors import UserError, one_line
from mocme_jax.explorer import seen
from mocme_jax.serving.name_lookup import Lookup
from mocme_jax.serving.run_loading import load

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

    from mocme_jax.serving.trained_model import TrainedModel

HOSTS = ("localhost", "127.0.0.1")
MOST_UPLOADED = 20 << 20
"""Bytes of a form with its picture."""

_SIDE = 256
"""Pixels of a picture's longer side."""

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Explored:
    """A trained model that grows by the entities that are added while the server runs.

    Args:
      model: as loaded.
      pictures: of entities, by id.
      uploads: a folder that uploaded pictures are kept in.
    """

    def __init__(self, model: TrainedModel, pictures: Mapping[int, list[Path]], uploads: Path):
        self.model, self.pictures, self._uploads = model, dict(pictures), uploads
        self._lock = threading.Lock()

    def ask(self, use: Callable[..., Any], *given: Any) -> Any:
        """``use(model, *given)``, one at a time: requests come in several threads."""
        with self._lock:
            return use(self.model, *given)

    def add(self, name: str, text: str, picture: bytes) -> int:
        """Adds an entity from what a form holds, and returns its id.

        Raises:
          UserError: the name is there already or empty, there is neither text nor picture, or the model cannot use one.
        """
        name = one_line(" ".join(name.split()))
        if not name:
            raise UserError("give the entity a name")
        if not text.strip() and not picture:
            raise UserError("give a picture or a text; the model needs at least one of them")
        with self._lock:
            index = len(self.model.entities)
            features: dict[str, list] = {}
            if text.strip():
                features["text"] = [text]
            if picture:
                path = self._uploads / str(index)
                path.write_bytes(picture)
                features["image"] = [path]
            try:
                self.model = self.model.add_entities([name], features)
            except UserError as error:
                raise UserError(str(error).replace(f"{self._uploads / str(index)}", "the picture")) from None
            if picture:
                self.pictures[index] = [path]
        return index


def make_app(explored: Explored, *, can_add: tuple[str, ...]) -> Starlette:
    """The pages as an application.

    Args:
      explored: what they tell of.
      can_add: which of ``text`` and ``image`` a new entity may be given as.
    """
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse
    from starlette.responses import Response as Raw
    from starlette.routing import Route

    from mocme_jax.report.html_page import render, style

    def page(template: str, status: int = 200, **told: Any) -> Response:
        model = explored.model
        about = {
            "graph": model.graph.name,
            "can_add": can_add,
            "name_of": model.entities.readable.__getitem__,
            "relation_name": model.relations.readable.__getitem__,
            "pictured": lambda index: bool(explored.pictures.get(index)),
        }
        return HTMLResponse(render(template, about | told, "mocme_jax.explorer"), status, _HEADERS)

    def known(text: str | None, names: Lookup) -> int:
        if text is None or not text.isascii() or not text.isdigit() or len(text) > 12 or int(text) >= len(names):
            raise HTTPException(404, f"there is no {names.kind} {text or ''}".strip())
        return int(text)

    def an_entity(text: str | None) -> int:
        return known(text, explored.model.entities)

    def start(request: Request) -> Response:
        words = request.query_params.get("name", "")[:200]
        if not words.strip():
            return page("start.html", words="", found=explored.ask(seen.most_known), title=explored.model.graph.name)
        return page("start.html", words=words, found=explored.ask(seen.found, words), title=words)

    def entity(request: Request) -> Response:
        index = an_entity(request.path_params["entity"])
        told = explored.ask(seen.entity, index)
        return page("entity.html", **told, ask=explored.ask(seen.askable, index), title=told["label"])

    def answers(request: Request) -> Response:
        asked = request.query_params
        index, relation = an_entity(asked.get("entity")), known(asked.get("relation"), explored.model.relations)
        way = "head" if asked.get("way") == "head" else "tail"
        found = explored.ask(seen.answers, index, relation, way)
        return page("answers.html", entity=index, relation=relation, way=way, answers=found, title="Answers")

    def reasons(request: Request) -> Response:
        asked = request.query_params
        head, tail = (an_entity(asked.get(end)) for end in ("head", "tail"))
        relation = known(asked.get("relation"), explored.model.relations)
        found = explored.ask(seen.reasons, (head, relation, tail))
        return page("reasons.html", head=head, relation=relation, tail=tail, **found, title="Why")

    def picture(request: Request) -> Response:
        paths = explored.pictures.get(an_entity(request.path_params["entity"]), [])
        if not paths:
            raise HTTPException(404, "the entity has no picture")
        try:
            small = read_image(paths[0], lambda image: small_png(image, _SIDE))
        except UserError:
            raise HTTPException(404, "the picture cannot be read") from None
        return Raw(small, media_type="image/png", headers=_HEADERS)

    async def add(request: Request) -> Response:
        if not can_add:
            raise HTTPException(404, "this model cannot encode new pictures or texts")
        if request.method == "GET":
            return page("add.html", title="Add an entity", problem="", name_given="", text="")
        if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
            raise HTTPException(403, "forms are accepted only from the explorer's own pages")
        if int(request.headers.get("content-length") or MOST_UPLOADED + 1) > MOST_UPLOADED:
            raise HTTPException(413, f"a form may hold at most {MOST_UPLOADED >> 20} MB")
        async with request.form(max_files=1, max_fields=4, max_part_size=1 << 20) as form:
            file = form.get("picture")
            given = await file.read() if hasattr(file, "read") else b""
            name, text = str(form.get("name") or ""), str(form.get("text") or "")
        try:
            index = await run_in_threadpool(explored.add, name, text if "text" in can_add else "", given)
        except UserError as error:
            return page("add.html", 400, title="Add an entity", problem=str(error), name_given=name, text=text)
        return RedirectResponse(f"/entity/{index}", 303, _HEADERS)

    def css(request: Request) -> Response:
        return PlainTextResponse(style() + style("mocme_jax.explorer"), 200, _HEADERS, "text/css")

    def wrong(request: Request, error: Exception) -> Response:
        status, told = (error.status_code, error.detail) if isinstance(error, HTTPException) else (400, str(error))
        return page("wrong.html", status, title="Not found" if status == 404 else "Not done", told=told)

    return Starlette(
        routes=[
            Route("/", start),
            Route("/entity/{entity}", entity),
            Route("/picture/{entity}", picture),
            Route("/answers", answers),
            Route("/why", reasons),
            Route("/add", add, methods=["GET", "POST"]),
            Route("/style.css", css),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(HOSTS))],
        exception_handlers={HTTPException: wrong, UserError: wrong},
    )


def explore(
    workdir: Path | str | None,
    data_dir: str | None,
    features_dir: str | None,
    images: Path | None,
    port: int,
) -> None:
    """Loads a run and serves its pages until Ctrl-C; see ``load`` for the folders and ``entity_files`` for pictures."""
    files: dict[int, list[Path]] = {}

    def find_pictures(entities: Lookup, relations: Lookup) -> None:
        if images is not None:
            found, unmatched = entity_files(images, entities.names, "image")
            files.update(found)
            print(f"{images}: pictures of {len(found):,} entities; {len(unmatched):,} files match no entity")

    listening = listen(port)
    model = load(workdir, data_dir=data_dir, features_dir=features_dir, notify=print, check=find_pictures)
    # What compiles and what fits probabilities is done before the first visitor asks.
    seen.reasons(model, (0, 0, seen.answers(model, 0, 0, "tail")[0]["id"]))
    with tempfile.TemporaryDirectory() as uploads, listening:
        app = make_app(Explored(model, files, Path(uploads)), can_add=model.takes_raw)
        print(f"http://{HOSTS[1]}:{listening.getsockname()[1]}/ shows {model.graph.name}; press Ctrl-C to stop")
        serve(app, listening)


def listen(port: int) -> socket.socket:
    """A socket that only this computer reaches, at a port, or at any that is free for 0.

    Raises:
      UserError: the port is taken.
    """
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOSTS[1], port))
        listening.listen()
    except OSError as error:
        listening.close()
        raise UserError(f"port {port} cannot be used ({error.strerror}); give another port with --port") from error
    return listening


def serve(app: Starlette, listening: socket.socket) -> None:
    """Serves until Ctrl-C, which is how it is meant to end."""
    import uvicorn

    quiet: dict[str, Any] = dict(log_level="warning", access_log=False, server_header=False, lifespan="off")
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(uvicorn.Config(app, **quiet)).run(sockets=[listening])
