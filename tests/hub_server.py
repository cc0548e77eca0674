"""A stand-in of the Hugging Face hub's HTTP API on loopback: repositories, commits, files, LFS, branches, tokens."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_" + "x" * 34


class Hub:
    """What the hub has: `files[(repository, commit)]`, and which commit each branch is."""

    def __init__(self):
        self.files: dict[tuple[str, str], dict[str, bytes]] = {}
        self.branches: dict[str, dict[str, str]] = {}
        self.private: dict[str, bool] = {}
        self.gated: set[str] = set()
        self.lfs: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.url = ""

    def commit(self, repository, files, branch="main", *, private=False):
        """Put files on a branch, beside those that are there (None removes one), and return the commit."""
        branches = self.branches.setdefault(repository, {})
        self.private.setdefault(repository, private)
        before = self.files.get((repository, branches.get(branch, branches.get("main", ""))), {})
        content = {name: data for name, data in {**before, **files}.items() if data is not None}
        text = repr((repository, branch, len(self.files), sorted(content)))
        branches[branch] = hashlib.sha1(text.encode()).hexdigest()
        branches.setdefault("main", branches[branch])
        self.files[repository, branches[branch]] = content
        return branches[branch]

    def commit_folder(self, repository, folder, **more):
        """Put all files of a folder on a branch."""
        found = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        return self.commit(repository, found, **more)

    def content(self, repository, branch="main"):
        """Return the files of a branch by name."""
        return self.files[repository, self.branches[repository][branch]]


@contextlib.contextmanager
def serving():
    """Serve an empty hub for the context's time."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Refused(Exception):
    def __init__(self, status, code="", message=""):
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_):
        pass

    def do_GET(self):
        self._answered(self._get)

    def do_HEAD(self):
        self._answered(self._get)

    def do_POST(self):
        self._answered(self._post)

    def do_PUT(self):
        self._answered(self._put)

    def _answered(self, answer):
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                self.body += self.rfile.read(size + 2)[:-2]
            self.rfile.readline()
        self.path_only = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {self.path_only}")
        try:
            status, headers, content = answer()
        except _Refused as refused:
            status, content = refused.status, {"error": refused.message}
            headers = {"X-Error-Code": refused.code, "X-Error-Message": refused.message}
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": len(content), **headers}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _known(self):
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _files(self, repository, revision):
        hub = self.hub
        if repository not in hub.branches or (hub.private[repository] and not self._known()):
            raise _Refused(401 if not self._known() else 404, "RepoNotFound", "Repository not found")
        if repository in hub.gated:
            raise _Refused(403, "GatedRepo", "Access to this model is restricted")
        commit = hub.branches[repository].get(revision, revision)
        if (repository, commit) not in hub.files:
            raise _Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit, hub.files[repository, commit]

    def _get(self):
        path, hub = self.path_only, self.hub
        if path == "/api/models":
            author = parse_qs(urlsplit(self.path).query).get("author", [""])[0]
            return 200, {}, [{"id": name} for name in hub.branches if name.startswith(f"{author}/")]
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/refs", path):
            names = hub.branches.get(found[1], {}).items()
            refs = [{"name": name, "ref": f"refs/heads/{name}", "targetCommit": commit} for name, commit in names]
            return 200, {}, {"branches": refs, "tags": [], "converts": []}
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", path):
            _, files = self._files(found[1], found[2])
            listed = [
                {"type": "file", "path": name, "size": len(data), "oid": _sha1(data)} for name, data in files.items()
            ]
            return 200, {}, listed
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            commit, files = self._files(found[1], found[2] or "main")
            siblings = [{"rfilename": name} for name in files]
            return 200, {}, {"id": found[1], "sha": commit, "private": hub.private[found[1]], "siblings": siblings}
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            commit, files = self._files(found[1], found[2])
            if found[3] not in files:
                raise _Refused(404, "EntryNotFound", "Entry not found")
            data = files[found[3]]
            return 200, {"ETag": f'"{_sha1(data)}"', "X-Repo-Commit": commit}, data
        raise _Refused(404, "", f"no {path}")

    def _post(self):
        path, hub = self.path_only, self.hub
        if path == "/api/validate-yaml":
            return 200, {}, {"errors": [], "warnings": []}
        if not self._known():
            raise _Refused(401, "", "Invalid username or password.")
        if path == "/api/repos/create":
            asked = json.loads(self.body)
            name = f"{asked['organization']}/{asked['name']}"
            if asked["organization"] != "anna":
                raise _Refused(403, "", f"You don't have the rights to create a model under {asked['organization']}")
            if name in hub.branches:
                return 409, {}, {"error": "You already created this model repo", "url": f"{hub.url}/{name}"}
            private = asked.get("visibility") == "private" or bool(asked.get("private"))
            hub.commit(name, {".gitattributes": b"*.safetensors filter=lfs\n"}, private=private)
            return 200, {}, {"url": f"{hub.url}/{name}"}
        if path.endswith(".git/info/lfs/objects/batch"):
            objects = [
                {**each, "actions": {"upload": {"href": f"{hub.url}/lfs/{each['oid']}"}}}
                for each in json.loads(self.body)["objects"]
            ]
            return 200, {}, {"transfer": "basic", "objects": objects}
        repository, action, branch = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(\w+)/(.+)", path).groups()
        if action == "branch":
            if branch in hub.branches[repository]:
                raise _Refused(409, "", "Reference already exists")
            hub.branches[repository][branch] = hub.branches[repository]["main"]
            return 200, {}, {}
        if action == "preupload":
            modes = {True: "lfs", False: "regular"}
            files = [
                {"path": each["path"], "uploadMode": modes[each["path"].endswith("safetensors")], "shouldIgnore": False}
                for each in json.loads(self.body)["files"]
            ]
            return 200, {}, {"files": files}
        changed = {}
        for line in self.body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "file":
                changed[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                changed[value["path"]] = hub.lfs[value["oid"]]
            elif item["key"] == "deletedFile":
                changed[value["path"]] = None
        commit = hub.commit(repository, changed, branch)
        return 200, {}, {"commitUrl": f"{hub.url}/{repository}/commit/{commit}", "commitOid": commit, "success": True}

    def _put(self):
        self.hub.lfs[self.path_only.rpartition("/")[2]] = self.body
        return 200, {}, b""


def _sha1(data):
    return hashlib.sha1(data).hexdigest()
