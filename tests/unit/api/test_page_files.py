"""The files of the page: what is in the package, and nothing else; a browser keeps what has not changed."""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from urllib.parse import urljoin

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

import serving
from serving.api.edge import PAGE_POLICY, PredictionRouter
from serving.api.page_files import MEDIA_TYPES, PageFile, page_files
from tests.fakes import ADMIN, call, exchange, make_app, run

DIRECTORY = Path(serving.__file__).parent / "api" / "ui"
ABSENT = [
    *("/ui/nope.js", "/ui/styles", "/ui/styles/", "/ui/views/", "/ui//", "/ui/index.html/", "/ui/session/"),
    *("/ui/../edge.py", "/ui/%2e%2e/edge.py", "/ui/..%2fedge.py", "/ui/%2e%2e%2f%2e%2e%2fserver.py"),
    *("/ui//index.html", "/ui/index.html%00", "/ui/INDEX.HTML", "/ui/index.html.gz", "/ui/%5cindex.html", "/UI/"),
    *("/ui/%2fetc/passwd", "/ui/swagger-ui.css", "/uix", "/ui/index.html%0d%0aset-cookie:a=b"),
]


def test_every_file_of_the_package_is_served_as_what_it_is_and_as_it_is() -> None:
    app = make_app()
    expected = {str(path.relative_to(DIRECTORY)): path for path in DIRECTORY.rglob("*") if path.is_file()}
    assert page_files().keys() == expected.keys()
    assert "index.html" in expected
    for name, path in expected.items():
        response = call(app, "GET", f"/ui/{name}")
        assert (response.status_code, response.content) == (200, path.read_bytes())
        assert response.headers["content-type"] == MEDIA_TYPES[path.suffix[1:]]
        assert response.headers["x-content-type-options"] == "nosniff"


def test_the_page_is_under_its_own_path_with_a_slash() -> None:
    app = make_app()
    page = call(app, "GET", "/ui/")
    assert (page.status_code, page.content) == (200, (DIRECTORY / "index.html").read_bytes())
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    redirected = call(app, "GET", "/ui")
    assert (redirected.status_code, redirected.headers["location"]) == (307, "ui/")
    assert call(app, "GET", "/ui", follow_redirects=True).content == page.content


@pytest.mark.parametrize("path", ABSENT)
def test_nothing_else_is(path: str) -> None:
    app = make_app()
    response = call(app, "GET", path)
    assert (response.status_code, response.headers["content-type"]) == (404, "application/problem+json")
    assert "edge.py" not in response.text or "edge.py" in path


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_files_are_only_read(method: str) -> None:
    app = make_app()
    for path in ("/ui", "/ui/", "/ui/index.html"):
        assert call(app, method, path, headers=ADMIN).status_code == 405


def test_a_browser_asks_whether_its_copy_still_holds_and_a_proxy_keeps_both_forms_apart() -> None:
    app = make_app()
    plain = call(app, "GET", "/ui/", headers={"accept-encoding": "identity"})
    packed = call(app, "GET", "/ui/", headers={"accept-encoding": "br, gzip"})
    assert plain.content == packed.content
    tags = plain.headers["etag"], packed.headers["etag"]
    assert tags[0] != tags[1]
    for response in (plain, packed):
        assert (response.headers["cache-control"], response.headers["vary"]) == ("no-cache", "accept-encoding")
    for coding, tag in zip(("identity", "gzip"), tags, strict=True):
        for known in (tag, f'W/{tag}, "other"', f'"other",{tag}', "*"):
            again = call(app, "GET", "/ui/", headers={"accept-encoding": coding, "if-none-match": known})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
            assert again.headers["cache-control"] == "no-cache"
            assert again.headers["content-security-policy"] == PAGE_POLICY.decode()
        for other in ('"other"', tag[:-1], tag.strip('"'), ""):
            again = call(app, "GET", "/ui/", headers={"accept-encoding": coding, "if-none-match": other})
            assert again.status_code == 200


@pytest.mark.parametrize(
    ("accepted", "is_packed"),
    [
        (None, False),
        ("", False),
        ("gzip", True),
        ("GZIP", True),
        ("deflate, gzip;q=0.5", True),
        ("gzip;q=0", False),
        ("gzip; q=0.0, *", False),
        ("*", True),
        ("*;q=0", False),
        ("br", False),
        ("xgzip", False),
    ],
)
def test_a_file_is_compressed_for_those_that_accept_it(accepted: str | None, *, is_packed: bool) -> None:
    headers = {} if accepted is None else {"accept_encoding": accepted}
    answer = run(exchange(make_app(), path="/ui/", method="GET", **headers))
    found = dict(answer.messages[0]["headers"])
    assert (found.get(b"content-encoding") == b"gzip") is is_packed
    body = b"".join(message.get("body", b"") for message in answer.messages[1:])
    assert int(found[b"content-length"]) == len(body)
    assert (gzip.decompress(body) if is_packed else body) == (DIRECTORY / "index.html").read_bytes()


def test_a_file_is_compressed_once_and_only_if_that_helps() -> None:
    large = PageFile(b"const a = 1;\n" * 100, "text/javascript")
    assert large.compressed is large.compressed is not None
    assert PageFile(bytes(range(256)), "image/png").compressed is None
    assert PageFile(b"a", "text/css").etag != PageFile(b"b", "text/css").etag


@pytest.mark.parametrize("path", ["/ui", "/ui/", "/ui/index.html", "/ui/session", *ABSENT[:6]])
def test_whatever_is_under_the_page_runs_nothing_but_its_own_scripts_and_is_in_no_frame(path: str) -> None:
    for app in (make_app(), make_app(server={"ui": "off"})):
        headers = call(app, "GET", path).headers
        policy = headers["content-security-policy"]
        assert "unsafe" not in policy
        assert set(policy.split("; ")) == {
            *("default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self'", "connect-src 'self'"),
            *("base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'", "require-trusted-types-for 'script'"),
            "trusted-types 'none'",
        }
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-opener-policy"] == headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["cache-control"] == ("no-store" if path.strip("/") == "ui/session" else "no-cache")
        assert headers["x-content-type-options"] == "nosniff"


def test_files_need_no_token_whatever_else_does() -> None:
    app = make_app(security={"read_token": "reads", "predict_token": "predicts"})
    assert call(app, "GET", "/models").status_code == 401
    assert call(app, "GET", "/ui/").status_code == 200


def test_the_page_can_be_switched_off() -> None:
    app = make_app(server={"ui": "off"})
    for path in ("/ui", "/ui/", "/ui/index.html", "/ui/session"):
        for method in ("GET", "HEAD", "POST", "DELETE"):
            assert call(app, method, path, headers=ADMIN).status_code == 404
    assert call(app, "GET", "/").json()["ui"] is None


def test_the_page_is_on_the_admin_port_only_where_there_is_one() -> None:
    app = make_app(server={"admin_port": 8001})
    operators = PredictionRouter(app, is_for_operators=True)
    for path in ("/ui", "/ui/", "/ui/index.html", "/ui/session"):
        assert call(app, "GET", path).status_code == 404
        assert call(operators, "GET", path).status_code in (200, 307)
    assert call(app, "GET", "/").json()["ui"] is None
    assert call(operators, "GET", "/").json()["ui"] == "/ui/"


def test_the_root_names_the_page() -> None:
    app = make_app()
    assert call(app, "GET", call(app, "GET", "/").json()["ui"]).status_code == 200


def test_the_page_works_below_a_mount_point() -> None:
    outer = Starlette(routes=[Mount("/ml", make_app())])
    assert call(outer, "GET", "/ml/ui/").content == (DIRECTORY / "index.html").read_bytes()  # type: ignore[arg-type]
    found = call(outer, "GET", "/ml/ui", follow_redirects=True)  # type: ignore[arg-type]
    assert (found.status_code, found.url.path) == (200, "/ml/ui/")
    assert found.headers["content-security-policy"] == PAGE_POLICY.decode()
    assert call(outer, "GET", "/ml/").json()["ui"] == "/ml/ui/"  # type: ignore[arg-type]


# what a browser loads by itself: of markup, of styles, of modules
LOADED = {
    ".html": re.compile(
        r"<(?:script|link|img|iframe|object|embed|source)\b[^>]*?\b(?:src|href|data)=[\"']?([^\"' >]+)"
    ),
    ".css": re.compile(r"(?:url\(|@import)\s*[\"']?([^\"')]+)"),
    ".js": re.compile(r"(?:\bfrom|\bimport\(?)\s*[\"'`]([^\"'`\s]+)[\"'`]"),
    ".svg": re.compile(r"(?:href|src)=[\"']([^\"']+)"),
}


def test_every_file_is_of_a_kind_that_browsers_are_told() -> None:
    found = {path.suffix[1:] for path in DIRECTORY.rglob("*") if path.is_file()}
    assert {"html", "js", "css"} <= found <= MEDIA_TYPES.keys()


def test_all_that_the_page_loads_is_a_file_of_the_page() -> None:
    app = make_app()
    names = set()
    for path in DIRECTORY.rglob("*"):
        if path.suffix in LOADED:
            base = f"http://test/ui/{path.relative_to(DIRECTORY)}"
            names |= {urljoin(base, name) for name in LOADED[path.suffix].findall(path.read_text())}
    assert "http://test/ui/main.js" in names
    for name in names:
        if not name.startswith("http://www.w3.org/"):  # the name of a vocabulary of XML, which nothing loads
            assert name.startswith("http://test/ui/")
            assert call(app, "GET", name).status_code == 200, name


def test_the_page_has_no_script_and_no_style_in_its_markup() -> None:
    """Its policy would not let them run."""
    for path in DIRECTORY.rglob("*.html"):
        text = path.read_text()
        assert not re.search(
            r"<script(?![^>]*\bsrc=)|<script[^>]*>\s*[^<\s]|<style|\bstyle=|\bon\w+=|javascript:", text
        )


def test_the_documentation_loads_nothing_from_elsewhere() -> None:
    directory = DIRECTORY.parent / "swagger_ui"
    styles, page = (directory / "swagger-ui.css").read_text(), (directory / "index.html").read_text()
    for name in (*LOADED[".css"].findall(styles), *LOADED[".html"].findall(page)):
        assert name.startswith("data:") or (directory / name.removeprefix("docs/")).is_file()
    assert "validatorUrl: null" in (directory / "start.js").read_text()  # it would ask swagger.io about the document
