"""The server's files, and the checks before every answer: paths, links, hosts, origins, headers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from support.http import HOST, ask

from ecvae_jax.cli.main import main
from ecvae_jax.serve.guard import Guard, is_own_name
from ecvae_jax.serve.static import Files

PAGE = {
    "index.html": "text/html; charset=utf-8",
    "main.js": "text/javascript; charset=utf-8",
    "vendor/ort.mjs": "text/javascript; charset=utf-8",
    "vendor/ort.wasm": "application/wasm",
    "model/model.json": "application/json",
    "model/draw.onnx": "application/octet-stream",
    "model/weights.bin": "application/octet-stream",
    "style.css": "text/css; charset=utf-8",
    "face.png": "image/png",
    "odd.exe": "application/octet-stream",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page, with everything in it and beside it that must not be served."""
    root = tmp_path_factory.mktemp("serve")
    page = root / "page"
    for name in PAGE:
        (page / name).parent.mkdir(parents=True, exist_ok=True)
        (page / name).write_bytes(name.encode() * 20000)
    (root / "secret.txt").write_text("secret")
    (page / ".hidden").write_text("secret")
    (page / ".git").mkdir()
    (page / ".git" / "config").write_text("secret")
    (page / "link.txt").symlink_to(root / "secret.txt")
    (page / "inner.html").symlink_to(page / "index.html")
    (page / "up").symlink_to(root)
    os.mkfifo(page / "fifo")
    return page


@pytest.fixture(scope="module")
def app(folder: Path) -> Guard:
    return Guard(Files(folder), "127.0.0.1")


@pytest.mark.parametrize("name", PAGE)
def test_each_file_has_its_bytes_and_type(app: Guard, folder: Path, name: str) -> None:
    answer = ask(app, f"/{name}")
    assert (answer.status, answer.headers["content-type"]) == (200, PAGE[name])
    assert answer.body == (folder / name).read_bytes()
    assert answer.headers["content-length"] == str(len(answer.body))


def test_the_root_is_the_index(app: Guard) -> None:
    assert ask(app, "/").body == ask(app, "/index.html").body


@pytest.mark.parametrize(
    "path",
    [
        "/missing", "/vendor", "/vendor/", "/model", "//", "//index.html", "/./index.html", "/vendor/../index.html",
        "/../secret.txt", "/vendor/../../secret.txt", "/..", "/.", "/.hidden", "/.git/config", "/link.txt",
        "/inner.html", "/up/secret.txt", "/up", "/fifo", "/..\\secret.txt", "/index.html\0", "/index.html/",
        "/index.html/x", "/%2e%2e/secret.txt", "/\udcff", "secret.txt", "", "/" + "a" * 5000, "/" + "a/" * 2000,
    ],
)  # fmt: skip
def test_nothing_else_is_served(app: Guard, path: str) -> None:
    answer = ask(app, path.encode("utf-8", "replace").decode())
    assert answer.status == 404
    assert answer.error == "no such file"
    assert b"secret" not in answer.body


@given(st.lists(st.sampled_from(["..", ".", "", "up", "page", "vendor", "link.txt", "secret.txt", "%2e%2e"])))
def test_no_path_leads_out(app: Guard, parts: list[str]) -> None:
    assert b"secret" not in ask(app, "/" + "/".join(parts)).body.replace(b"no such file", b"")


def test_a_folder_that_became_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "page" / "a").mkdir(parents=True)
    (tmp_path / "page" / "a" / "x.txt").write_text("mine")
    app = Guard(Files(tmp_path / "page"), "127.0.0.1")
    assert ask(app, "/a/x.txt").body == b"mine"
    (tmp_path / "page" / "a").rename(tmp_path / "page" / "b")
    (tmp_path / "page" / "a").symlink_to("b")
    assert ask(app, "/a/x.txt").status == 404
    assert ask(app, "/b/x.txt").body == b"mine"


def test_head_and_an_unchanged_file_have_no_body(app: Guard) -> None:
    whole, head = ask(app, "/main.js"), ask(app, "/main.js", "HEAD")
    assert head.body == b""
    assert head.headers == whole.headers
    again = ask(app, "/main.js", headers={"if-none-match": whole.headers["etag"]})
    assert (again.status, again.body) == (304, b"")
    assert ask(app, "/style.css", headers={"if-none-match": whole.headers["etag"]}).status == 200


def test_fields_of_a_json_file_are_replaced(tmp_path: Path) -> None:
    """The page reads in page.json whether the server computes."""
    (tmp_path / "page.json").write_text('{"compute": false, "version": "1"}')
    app = Guard(Files(tmp_path, {"page.json": {"compute": True}, "other.json": {}}), "127.0.0.1")
    answer = ask(app, "/page.json")
    assert answer.json == {"compute": True, "version": "1"}
    assert answer.headers["cache-control"] == "no-store"
    assert ask(Guard(Files(tmp_path), "127.0.0.1"), "/page.json").json["compute"] is False
    assert ask(app, "/other.json").status == 404
    (tmp_path / "page.json").write_text("[]")
    assert ask(app, "/page.json").status == 404


@pytest.mark.parametrize("kind", ["nested", "huge"])
def test_a_nested_or_huge_json_file_is_not_found(tmp_path: Path, kind: str) -> None:
    from ecvae_jax.serve.serving import check_points

    for name in ("page.json", "model.json"):
        with (tmp_path / name).open("wb") as file:
            file.write(b"[" * 100_000)
            file.truncate(2**40 if kind == "huge" else 100_000)
    app = Guard(Files(tmp_path, {"page.json": {"compute": True}}), "127.0.0.1")
    assert ask(app, "/page.json").status == 404
    check_points(tmp_path, 98)  # no page of ours


def test_a_page_of_other_landmarks_is_refused(tmp_path: Path) -> None:
    from ecvae_jax.serve.serving import check_points

    check_points(tmp_path, 98)
    (tmp_path / "model.json").write_text('{"points": 68}')
    check_points(tmp_path, 68)
    with pytest.raises(ValueError, match="has 68 landmarks, and the model reads 98; leave FOLDER out"):
        check_points(tmp_path, 98)


def test_a_changed_file_has_another_tag(app: Guard, folder: Path) -> None:
    before = ask(app, "/odd.exe").headers["etag"]
    (folder / "odd.exe").write_bytes(b"changed")
    assert ask(app, "/odd.exe", headers={"if-none-match": before}).body == b"changed"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "X" * 1000])
def test_files_are_only_read(app: Guard, method: str) -> None:
    answer = ask(app, "/index.html", method)
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")
    assert "use GET" in answer.error


@pytest.mark.parametrize(
    ("path", "headers"), [("/", {}), ("/missing", {}), ("/", {"host": "evil.example"}), ("/main.js", {})]
)
def test_every_answer_has_the_headers_that_isolate_it(app: Guard, path: str, headers: dict[str, str]) -> None:
    found = ask(app, path, headers=headers).headers
    assert found["cross-origin-opener-policy"] == "same-origin"
    assert found["cross-origin-embedder-policy"] == "require-corp"
    assert found["cross-origin-resource-policy"] == "same-origin"
    assert found["x-content-type-options"] == "nosniff"
    assert found["referrer-policy"] == "no-referrer"
    policy = dict(rule.split(" ", 1) for rule in found["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == "'self' 'wasm-unsafe-eval'"
    assert policy["connect-src"] == "'self'"
    assert not any("http" in rule or "*" in rule or "unsafe-inline" in rule for rule in policy.values())
    assert not any(name.startswith("access-control") for name in found)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "localhost:9000"}, 200),  # a tunnel has another port
        ({"host": "127.0.0.1"}, 200),
        ({"host": "[::1]:8000"}, 200),
        ({"host": "LOCALHOST:8000"}, 200),
        ({"host": "evil.example"}, 403),
        ({"host": "127.0.0.1.evil.example:8000"}, 403),
        ({"host": "evil@127.0.0.1"}, 403),
        ({"host": "127.0.0.1/evil"}, 403),
        ({"host": "10.0.0.7:8000"}, 403),
        ({"host": ""}, 403),
        ({"host": "[::1"}, 403),
        ({"host": "127.0.0.1:99999999"}, 403),
        ({"origin": f"http://{HOST}"}, 200),
        ({"origin": "http://127.0.0.1:8001"}, 403),
        ({"origin": "http://localhost:8000"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "file://"}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": ""}, 403),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"sec-fetch-site": "none"}, 200),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 200),  # a link to the page
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, 403),
        ({"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"}, 403),
    ],
)
def test_other_hosts_and_origins_are_refused(app: Guard, headers: dict[str, str], status: int) -> None:
    answer = ask(app, "/index.html", headers=headers)
    assert answer.status == status
    if status == 403:
        assert b"index.html" not in answer.body
        assert answer.error.split(":")[0] in ("Host header", "Origin header", "Sec-Fetch-Site header")


def test_a_form_of_another_page_does_not_navigate_to_an_answer(app: Guard) -> None:
    headers = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert ask(app, "/index.html", "POST", headers).status == 403


@given(st.text(max_size=30))
def test_only_names_of_this_machine_pass(name: str) -> None:
    assert is_own_name(name, "127.0.0.1") == (name in ("localhost", "127.0.0.1", "::1"))


@pytest.mark.parametrize(
    ("name", "bound", "own"),
    [
        ("10.1.2.3", "0.0.0.0", True),
        ("fe80::1", "::", True),
        ("localhost", "0.0.0.0", True),
        ("evil.example", "0.0.0.0", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.4", "10.1.2.3", False),
        ("faces.lan", "Faces.lan", True),
        ("127.0.0.1", "::1", True),
        (None, "0.0.0.0", False),
    ],
)
def test_the_names_of_other_addresses(name: str | None, bound: str, own: bool) -> None:
    assert is_own_name(name, bound) == own


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (["nowhere"], 1, "folder 'nowhere': no such folder; write one with `ecvae page OUT`"),
        (["."], 1, "folder '.': has no index.html"),
        (["--port", "70000"], 2, "port=70000: must be between 0 and 65535"),
        (["page", "--checkpoint", "c"], 2, "FOLDER has its own model; add --compute"),
        (["page", "--host", "nosuch.invalid"], 1, "host='nosuch.invalid': "),
        (["page", "--host", "192.0.2.1", "--port", "0"], 1, "give an address of this machine"),
        (["page", "--port", "0", "--compute", "--checkpoint", "nowhere"], 1, "checkpoint 'nowhere': no such folder"),
    ],
)
def test_wrong_usage_is_one_line(
    words: list[str],
    code: int,
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "index.html").write_text("page")
    assert main(["serve", *words]) == code
    shown = capsys.readouterr()
    assert line in shown.err
    assert len(shown.err.splitlines()) == 1
    assert shown.out == ""


def test_a_link_is_no_index(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "index.html").symlink_to(__file__)
    assert main(["serve", str(tmp_path)]) == 1
    assert "has no index.html" in capsys.readouterr().err


@pytest.mark.parametrize("package", ["starlette", "uvicorn"])
def test_a_missing_package_is_named(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    for name in [name for name in sys.modules if name.startswith("ecvae_jax.serve")]:
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["serve", str(tmp_path)]) == 1
    assert capsys.readouterr().err == (f"ecvae: error: {package} is not installed: pip install 'ecvae-jax[serve]'\n")
