"""A hub on this machine: as much of its HTTP interface as one push and one pull take."""

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "c" * 40


class Hub(BaseHTTPRequestHandler):
    """Keeps the files of every commit in ``server.files``, and who sent them in ``server.tokens``."""

    def log_message(self, *args):
        pass

    def answer(self, status, content=b"", **headers):
        self.send_response(status)
        for key, value in {"Content-Length": len(content), **headers}.items():
            self.send_header(key.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def json(self, value):
        self.answer(200, json.dumps(value).encode(), Content_Type="application/json")

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.tokens.append(self.headers.get("Authorization"))
        address = f"{self.server.address}/someone/small"
        if self.path == "/api/repos/create":
            self.json({"url": address})
        elif self.path == "/api/validate-yaml":
            self.json({"errors": [], "warnings": []})
        elif self.path.endswith("/preupload/main"):
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                for f in json.loads(body)["files"]
            ]
            self.json({"files": files})
        else:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self.json({"commitUrl": f"{address}/commit/{COMMIT}", "commitOid": COMMIT})

    def do_GET(self):
        if self.path.startswith("/api/models/"):
            files = [{"rfilename": name} for name in self.server.files]
            tree = [
                {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for name, content in self.server.files.items()
            ]
            self.json(
                tree if "/tree/" in self.path else {"id": "someone/small", "sha": COMMIT, "siblings": files}
            )
            return
        content = self.server.files.get(self.path.partition(f"/resolve/{COMMIT}/")[2])
        if content is None:
            self.answer(404)
        else:
            tag = hashlib.sha1(content).hexdigest()
            self.answer(200, content, ETag=f'"{tag}"', X_Repo_Commit=COMMIT)

    do_HEAD = do_GET


@contextmanager
def hub(monkeypatch, cache):
    """The server; huggingface_hub talks to it alone."""
    from huggingface_hub import constants

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.files, server.tokens = {}, []
    server.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    for name, value in {
        "ENDPOINT": server.address,
        "HF_HUB_OFFLINE": False,
        "HF_HUB_CACHE": str(cache),
    }.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
