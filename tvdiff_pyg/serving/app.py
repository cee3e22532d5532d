"""The HTTP service: endpoints over a finished run."""
# No postponed annotations here: FastAPI reads those of the endpoints, whose models are made for each run's limits.
import asyncio
import re
import unicodedata
import weakref
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from functools import partial
from hashlib import sha256
from importlib import resources
from typing import Annotated, Any, AsyncIterator, Callable, Collection, Dict, List, Optional, Sequence, Tuple, TypeVar

import jinja2
import torch
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from starlette.exceptions import HTTPException as StarletteHTTPException

from tvdiff_pyg import __version__
from tvdiff_pyg.serving.guard import Guard, Metrics, problem
from tvdiff_pyg.training.describe import describe_item
from tvdiff_pyg.training.run import Run
from tvdiff_pyg.typing import HistoryScorer

BLOCK_SIZE = 1  # one person a request: a block of 128 takes 12 ms for MovieLens small, a block of one 2
MAX_ID = 256  # characters of an id or a query
MAX_FOUND = 50
PATHS = ('/', '/docs', '/openapi.json', '/recommend', '/items', '/health', '/metrics')
PAGE_POLICY = ("default-src 'none'; script-src {scripts}; style-src {styles}; connect-src 'self'; img-src data:; "
               "base-uri 'none'; form-action 'none'; frame-ancestors 'none'")

Result = TypeVar('Result')
Id = Annotated[str, StringConstraints(min_length=1, max_length=MAX_ID)]


@dataclass(frozen=True)
class Limits:
    """What a client may ask for, and how much of the machine it may take.

    Attributes:
        max_k: longest list of recommendations.
        max_history: most items of a history.
        max_filter: most items of ``allow`` and of ``deny``.
        max_body: bytes of a request's body; by default 64 for each item of a history and two filters, at least 65,536.
        body_seconds: for a body to arrive.
        threads: that score, of one torch thread each.
        max_waiting: requests that are scored or wait for it; more are refused with 503.
    """

    max_k: int = 100
    max_history: int = 1000
    max_filter: int = 1000
    max_body: int = None  # type: ignore[assignment]  # an int once it is made
    body_seconds: float = 10.0
    threads: int = 1
    max_waiting: int = 64

    def __post_init__(self) -> None:
        """Raise ``ValueError`` for a limit that lets nothing through."""
        if self.max_body is None:
            ids = self.max_history + 2 * self.max_filter
            object.__setattr__(self, 'max_body', max(65_536, 64 * ids))
        for limit in fields(self):
            value = getattr(self, limit.name)
            if not value > 0:
                raise ValueError(f"'{limit.name}' must be above 0, got {value}")


class Problem(BaseModel):
    """Why a request was refused."""

    error: str


class Item(BaseModel):
    """An item, with its title, year and so on where the data have them."""

    model_config = ConfigDict(extra='allow')
    item: str = Field(description='original id')


class Recommended(Item):
    """An item in a list of recommendations."""

    score: float


class Answer(BaseModel):
    """Recommendations, best first; fewer than ``k`` where no more items may be listed."""

    user: Optional[str] = Field(None, description='as in the request')
    items: List[Recommended]


class Found(BaseModel):
    """Items that fit a query, those with the most users first."""

    items: List[Item]


class Health(BaseModel):
    """What is being served."""

    status: str
    version: str
    model: str
    dataset: str
    users: int
    items: int
    history: bool = Field(description='whether people who were not trained on can be served')
    max_k: int
    max_history: int


class Service:
    """A run in the form that requests need: scorers computed once, ids in a dict, and threads that score.

    Args:
        run: a finished run.
        limits: see :class:`Limits`.
    """

    def __init__(self, run: Run, limits: Limits) -> None:
        self.run, self.limits = run, limits
        data = run.split.data
        self.users, self.items = run.index('user'), run.index('item')
        self.history_scorer: Optional[HistoryScorer] = None
        self.no_history = ''
        with torch.no_grad():
            try:
                self.history_scorer = run.model.history_scorer()
            except ValueError as error:  # it knows only its own users
                self.no_history = str(error)
                self.scorer = run.model.scorer()
            else:  # one solution for both: two would take twice the time and memory
                history_scorer, seen = self.history_scorer, run.model.interactions
                self.scorer = lambda users: history_scorer(seen, users)
        order = run.split.train.item_degree.argsort(descending=True, stable=True).tolist()
        self.texts = [(index, _folded(f"{data.item_id[index]} {describe_item(run.item(index))}")) for index in order]
        self.executor: Optional[ThreadPoolExecutor] = None
        self.waiting = 0

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """Hold the threads while the service runs; those that score finish what they have begun."""
        self.executor = ThreadPoolExecutor(self.limits.threads, 'score', torch.set_num_threads, (1,))
        try:
            # The first calls take several times as long: nobody should wait for them. They find a broken model, too.
            for user in range(min(3, self.run.model.num_users)):
                await self.scored(partial(self.for_user, self.run.split.data.user_id[user], 1, None, ()))
            yield
        finally:
            self.executor.shutdown()

    async def scored(self, work: Callable[[], Result]) -> Result:
        """Do work in a thread, so that other requests go on; refuse it where too much is waiting already."""
        if self.waiting >= self.limits.max_waiting:
            raise HTTPException(503, 'too many requests are waiting: try again', {'retry-after': '1'})
        self.waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self.executor, work)
        finally:
            self.waiting -= 1

    def for_user(self, user: str, k: int, allow: Optional[Sequence[str]], deny: Sequence[str]) -> List[Dict[str, Any]]:
        """Return the list of a user of the training part, as :meth:`Run.recommend` does."""
        return self.run.recommend([user], k, allow, deny, self.scorer, BLOCK_SIZE)[0]['items']

    def for_history(self, history: Sequence[str], k: int, allow: Optional[Sequence[str]],
                    deny: Sequence[str]) -> List[Dict[str, Any]]:
        """Return the list of somebody who has seen these items."""
        answer = self.run.recommend_history([history], k, allow, deny, self.history_scorer, BLOCK_SIZE)
        return answer[0]['items']

    def find(self, query: str, limit: int) -> List[Dict[str, Any]]:
        """Return items whose id, title or year hold every word of a query; an exact id comes first."""
        words = _folded(query).split()
        found = [self.items[query]] if query in self.items else []
        for index, text in self.texts:
            if len(found) >= limit:
                break
            if all(word in text for word in words) and index not in found:
                found.append(index)
        return [self.run.item(index) for index in found]

    def check_items(self, names: Sequence[str]) -> None:
        """Refuse items that are not in the catalogue, by name."""
        for name in names:
            if name not in self.items:
                raise HTTPException(422, f"item '{name}' does not occur in '{self.run.split.data.name}'")


def create_app(run: Run, limits: Limits = Limits(), hosts: Optional[Collection[str]] = None) -> FastAPI:
    """Return the service over a finished run, for any ASGI server.

    The scorer is computed here, once. No request names a file, and nothing of a request is unpickled or evaluated.

    Args:
        run: a finished run.
        limits: see :class:`Limits`.
        hosts: the host names, without a port, that requests may be addressed to; any by default.
    """
    held = Service(run, limits)
    service: Service = weakref.proxy(held)  # FastAPI keeps endpoints for ever: they must not keep the run with them
    dataset, most = run.split.data.name, min(limits.max_k, run.model.num_items)
    about = {'status': 'ok', 'version': __version__, 'model': run.recipe.model.name, 'dataset': dataset,
             'users': run.model.num_users, 'items': run.model.num_items, 'history': held.history_scorer is not None,
             'max_k': most, 'max_history': limits.max_history}
    first_items = list(run.split.data.item_id[:2])
    pages, policies = _pages()
    metrics = Metrics(PATHS)
    app = FastAPI(title='tvdiff', version=__version__, lifespan=held.lifespan, docs_url=None, redoc_url=None,
                  description=f'Recommendations from {dataset}, by {run.recipe.model.name}.')
    app.add_middleware(Guard, metrics=metrics, max_body=limits.max_body, body_seconds=limits.body_seconds, hosts=hosts,
                       policies=policies)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(StarletteHTTPException, _refused)
    app.add_exception_handler(Exception, _failed)
    refusals: Dict[int | str, Dict[str, Any]] = {status: {'model': Problem} for status in (400, 413, 415, 422, 503)}

    class Wanted(BaseModel):
        """Whom to recommend to, by exactly one of ``user`` and ``history``, and what."""

        model_config = ConfigDict(extra='forbid', strict=True, json_schema_extra={
            'examples': [{'history': first_items, 'k': min(5, most)}]})
        user: Optional[Id] = Field(None, description='original id of a user of the training part')
        history: Optional[List[Id]] = Field(
            None, min_length=1, max_length=limits.max_history, fail_fast=True,
            description='original ids of the items that somebody has seen, in any order')
        k: int = Field(min(10, most), ge=1, le=most, description='length of the list')
        allow: Optional[List[Id]] = Field(
            None, max_length=limits.max_filter, fail_fast=True, description='the only items that may be listed')
        deny: List[Id] = Field(
            [], max_length=limits.max_filter, fail_fast=True,
            description='items that may not be listed; unknown ones never are')

        @model_validator(mode='before')
        @classmethod
        def known_fields(cls, values: Any) -> Any:
            # At the first: of thousands, an error each would hold all other requests up.
            for name in values if isinstance(values, dict) else ():
                if name not in cls.model_fields:
                    raise ValueError(f'unknown field {ascii(name[:MAX_ID])}')
            return values

        @model_validator(mode='after')
        def one_of_two(self) -> 'Wanted':
            if (self.user is None) == (self.history is None):
                raise ValueError("give exactly one of 'user' and 'history'")
            return self

    @app.post('/recommend', response_model=Answer, responses={**refusals, 404: {'model': Problem}})
    async def recommend(wanted: Wanted) -> Response:
        """Recommend items that a person has not seen: of a user, in no part of the data."""
        service.check_items([*(wanted.history or ()), *(wanted.allow or ())])
        if wanted.user is not None:
            if wanted.user not in service.users:
                raise HTTPException(404, f"user '{wanted.user}' does not occur in the training part of '{dataset}'; "
                                         f"send what they have seen as 'history'")
            items = await service.scored(partial(service.for_user, wanted.user, wanted.k, wanted.allow, wanted.deny))
            return JSONResponse({'user': wanted.user, 'items': items})
        assert wanted.history is not None
        if service.history_scorer is None:
            raise HTTPException(422, service.no_history)
        items = await service.scored(partial(service.for_history, wanted.history, wanted.k, wanted.allow, wanted.deny))
        return JSONResponse({'items': items})

    @app.get('/items', response_model=Found, responses={422: {'model': Problem}, 503: {'model': Problem}})
    async def items(query: Annotated[str, Query(min_length=1, max_length=MAX_ID)],
                    limit: Annotated[int, Query(ge=1, le=MAX_FOUND)] = 10) -> Response:
        """Search items whose id, title or year hold every word of a query."""
        if not _folded(query).split() and query not in service.items:
            raise HTTPException(422, 'query.query: must hold a word, not blanks alone')
        return JSONResponse({'items': await service.scored(partial(service.find, query, limit))})

    @app.get('/health', response_model=Health)
    async def health() -> Response:
        """Tell that the service runs, and what it serves."""
        return JSONResponse(about)

    @app.get('/metrics', response_class=Response)
    async def measured() -> Response:
        """Return figures for Prometheus."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get('/', include_in_schema=False)
    async def demo() -> Response:
        return HTMLResponse(pages['/'])

    @app.get('/docs', include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(documentation)

    documentation = _documentation(pages['/docs'], app.openapi())
    app.state.service = held
    return app


def _folded(text: str) -> str:
    """Return text without case and accents."""
    plain = unicodedata.normalize('NFKD', text.casefold())
    return ''.join(letter for letter in plain if not unicodedata.combining(letter))


def _pages() -> Tuple[Dict[str, str], Dict[str, str]]:
    """Return the pages and their policies: a browser runs and shows only what stands in them now, by its hash."""
    pages, policies = {}, {}
    for path, name in (('/', 'demo.html'), ('/docs', 'docs.html')):
        page = (resources.files('tvdiff_pyg') / 'serving' / name).read_text(encoding='utf-8')
        hashes = {tag: ' '.join(f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"
                                for text in re.findall(f'<{tag}>(.*?)</{tag}>', page, re.DOTALL)) or "'none'"
                  for tag in ('script', 'style')}
        pages[path], policies[path] = page, PAGE_POLICY.format(scripts=hashes['script'], styles=hashes['style'])
    return pages, policies


def _documentation(page: str, openapi: Dict[str, Any]) -> str:
    template = jinja2.Template(page, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return template.render(api=openapi, schemas=openapi['components']['schemas'])


async def _invalid(request: Request, error: Exception) -> Response:
    """Answer a request of the wrong form. What was sent is not repeated: it may not even be text."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = [str(part) for part in first['loc']]
    if first['type'] == 'json_invalid':
        return problem(422, f"the body is not JSON: {first['ctx']['error']} at character {where[-1]}")
    kind = request.headers.get('content-type', '').partition(';')[0].strip().lower()
    if where == ['body'] and kind != 'application/json' and first['type'] != 'missing':
        return problem(415, "send the body as JSON, with 'content-type: application/json'")
    return problem(422, f"{'.'.join(where)}: {first['msg'].removeprefix('Value error, ')}")


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, StarletteHTTPException)
    return problem(error.status_code, str(error.detail), error.headers)


async def _failed(request: Request, error: Exception) -> Response:
    """Say no more than that it failed; the server writes the traceback to its log."""
    return problem(500, 'the service failed; its log says why')
