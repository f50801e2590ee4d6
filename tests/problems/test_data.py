"""Readers and the downloader."""

import hashlib
import http.server
import threading

import pytest

from mtlweights.problems.data import download
from mtlweights.problems.data.readers import CONLLU, column_names, read_columns, read_table
from mtlweights.problems.data.sources import Source

CONLLU_TEXT = """\ufeff# sent_id = 1
# text = Don't go
1-2\tDon't\t_\t_\t_\t_\t_\t_\t_\t_
1\tDo\tdo\tAUX\t_\t_\t3\taux\t_\t_
2\tn't\tnot\tPART\t_\t_\t3\tadvmod\t_\t_
2.1\tyou\tyou\tPRON\t_\t_\t_\t_\t_\t_
3\tgo\tgo\tVERB\t_\t_\t0\troot\t_\t_

# sent_id = 2
1\t#hi\t#hi\tX\t_\t_\t0\troot\t_\t_
"""


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_conllu(tmp_path, ends):
    path = tmp_path / "a.conllu"
    path.write_text(CONLLU_TEXT, "utf-8", newline=ends)
    assert column_names(path) == CONLLU
    assert [[row[1] for row in rows] for rows in read_columns(path)] == [["Do", "n't", "go"], ["#hi"]]


def test_bio_files_skip_docstart_and_keep_words_that_start_with_a_hash(tmp_path):
    path = tmp_path / "a.bio"
    path.write_text(
        "-DOCSTART- -X- O\n\n#tag\t-\tO\n#\t-\tO\nBob\t-\tB-PER\n\n\n# a comment\nx\t-\tO", "utf-8"
    )
    assert column_names(path) == ()
    assert read_columns(path) == [
        [["#tag", "-", "O"], ["#", "-", "O"], ["Bob", "-", "B-PER"]],
        [["x", "-", "O"]],
    ]


def test_comments_are_told_from_words_with_a_hash(tmp_path):
    path = tmp_path / "a.txt"
    numbered = "#\thttp://x/1\t[2010]\t\n1\tAnna\tB-PER\tO\n2\t#\tO\tO\n\n# x\n1\t#\tO\tO\n"
    path.write_text(numbered, "utf-8")  # GermEval
    assert [[row[1] for row in rows] for rows in read_columns(path)] == [["Anna", "#"], ["#"]]
    path.write_text("# O\nBob B-PER\n\n# comment\n# a longer one\n#tag O\n# B-PER\n", "utf-8")
    assert read_columns(path) == [[["#", "O"], ["Bob", "B-PER"]], [["#tag", "O"], ["#", "B-PER"]]]


def test_only_a_blank_or_a_tab_ends_a_cell(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("10\u00a0000  O\n\u00a0 O\nx\u2003y O\n", "utf-8")
    assert read_columns(path) == [[["10\u00a0000", "O"], ["\u00a0", "O"], ["x\u2003y", "O"]]]
    path.write_text("a b \t O\n", "utf-8")
    assert read_columns(path) == [[["a b", "O"]]]


def test_a_line_separator_inside_a_word_ends_no_line(tmp_path):
    path = tmp_path / "a.bio"
    path.write_text("a\u2028b\tO\nc\x85\tO\n", "utf-8", newline="\n")
    assert read_columns(path) == [[["a\u2028b", "O"], ["c\x85", "O"]]]


def test_global_columns_name_the_columns(tmp_path):
    path = tmp_path / "a.conllup"
    path.write_text("# global.columns = ID FORM NER\n1\tBob\tB-PER\n", "utf-8")
    assert column_names(path) == ("id", "form", "ner")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no sentence found"),
        (b"# only a comment\n\n", "no sentence found"),
        (b"a O\nb\n", "line 2: expected 2 columns as above, found 1"),
        (b"a \xff\n", "expected UTF-8 text, found byte 0xff, as in cp1252: .* iconv -f cp1252 -t utf-8"),
    ],
)
def test_a_column_file_that_cannot_be_read_is_named(tmp_path, content, message):
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_columns(path)
    assert str(path) in str(caught.value)


def test_tables(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b'name, size\r\n"a, b",1\r\n\r\nc, 2\r\n')
    assert read_table(path) == [{"name": "a, b", "size": "1"}, {"name": "c", "size": "2"}]
    path.write_text('x\ty\nsay "hi\t1\n', "utf-8")
    assert read_table(path, "\t") == [{"x": 'say "hi', "y": "1"}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no rows"),
        ("a,b\n", "no rows"),
        ("a,a\n1,2\n", "different names"),
        ("a,\n1,2\n", "different names"),
        ("a,b\n1,2\n1\n", "line 3: expected 2 cells as in the header, found 1"),
    ],
)
def test_a_table_that_cannot_be_read_is_named(tmp_path, content, message):
    path = tmp_path / "bad.csv"
    path.write_text(content, "utf-8")
    with pytest.raises(ValueError, match=message) as caught:
        read_table(path)
    assert str(path) in str(caught.value)


NAME, CONTENT = "toy/a.txt", b"the content\n"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server of one file, a `FILES` that names it, an empty cache and no MTLWEIGHTS_DATA."""
    served = {"/repo/a.txt": CONTENT}
    requests = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            self.send_response(200 if self.path in served else 404)
            self.end_headers()
            self.wfile.write(served.get(self.path, b""))

        def log_message(self, *args):
            pass

    httpd = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setattr(download, "HOST", f"http://127.0.0.1:{httpd.server_port}")
    monkeypatch.setitem(download.FILES, NAME, Source("repo/a.txt", SHA256))
    monkeypatch.setenv("MTLWEIGHTS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MTLWEIGHTS_DATA", raising=False)
    yield served, requests
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def test_a_file_is_downloaded_once_and_verified(server, tmp_path):
    _, requests = server
    for _ in range(2):
        assert download.data_file(NAME).read_bytes() == CONTENT
    assert requests == ["/repo/a.txt"]
    assert [path.name for path in (tmp_path / "cache" / "toy").iterdir()] == ["a.txt"]


def test_the_data_folder_comes_before_the_cache_and_the_network(server, tmp_path, monkeypatch):
    _, requests = server
    monkeypatch.setenv("MTLWEIGHTS_DATA", str(tmp_path / "data"))
    (tmp_path / "data" / "toy").mkdir(parents=True)
    (tmp_path / "data" / NAME).write_bytes(CONTENT)
    assert download.data_file(NAME) == tmp_path / "data" / NAME
    assert requests == []


def check_message(caught, *parts):
    message = str(caught.value)
    assert "\n" not in message
    for part in (NAME, SHA256, "MTLWEIGHTS_DATA", *parts):
        assert part in message


@pytest.mark.parametrize("folder", ["data", "cache"])
def test_a_corrupt_file_is_named_with_both_hashes(server, tmp_path, monkeypatch, folder):
    monkeypatch.setenv("MTLWEIGHTS_DATA", str(tmp_path / "data"))
    (tmp_path / folder / "toy").mkdir(parents=True)
    (tmp_path / folder / NAME).write_bytes(b"corrupt")
    with pytest.raises(ValueError, match="is not the expected file") as caught:
        download.data_file(NAME)
    check_message(caught, str(tmp_path / folder / NAME), hashlib.sha256(b"corrupt").hexdigest())


def test_a_corrupt_download_is_not_kept(server, tmp_path):
    server[0]["/repo/a.txt"] = b"corrupt"
    with pytest.raises(ValueError, match="is not the expected file") as caught:
        download.data_file(NAME)
    check_message(caught, hashlib.sha256(b"corrupt").hexdigest())
    assert not (tmp_path / "cache").exists()


def test_a_missing_file_without_a_network_is_named(server, monkeypatch):
    server[0].clear()
    with pytest.raises(OSError, match="404") as caught:
        download.data_file(NAME)
    check_message(caught)
    monkeypatch.setattr(download, "HOST", "http://127.0.0.1:1")
    with pytest.raises(OSError, match="refused") as caught:
        download.data_file(NAME)
    check_message(caught)


def test_every_source_is_pinned_to_a_commit_and_a_checksum():
    for name, source in download.FILES.items():
        assert len(source.url.split("/")[2]) == 40, name
        assert len(bytes.fromhex(source.sha256)) == 32, name


def test_the_real_files_have_their_checksums(data_dir):
    for name in download.FILES:
        assert download.data_file(name) == data_dir / name
