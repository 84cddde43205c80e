"""Names on the Hugging Face hub: the real client against a server in this process."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub.constants as constants
import pyarrow
import pyarrow.parquet
import pytest
from data.conftest import random_image, save
from data.sources.forms import png

from notbugs.data import DataConfig, sources
from notbugs.errors import InputError

SHA = "0123456789" * 4


class Hub(BaseHTTPRequestHandler):
    """What the client asks of a hub: about a repository, what is in it, and its files, which are those of a folder."""

    root: Path
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        names = sorted(path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if path.is_file())
        if re.fullmatch(r"/api/datasets/me/pets(/revision/main)?(\?.*)?", self.path):
            self._json({"id": "me/pets", "sha": SHA, "siblings": [{"rfilename": name} for name in names]})
        elif self.path.startswith(f"/api/datasets/me/pets/tree/{SHA}"):
            sizes = {name: (self.root / name).stat().st_size for name in names}
            self._json([{"type": "file", "path": name, "size": sizes[name], "oid": self._tag(name)} for name in names])
        elif (match := re.fullmatch(rf"/datasets/me/pets/resolve/{SHA}/(.*)", self.path)) and match[1] in names:
            content = (self.root / match[1]).read_bytes()
            self._send(200, content, {"ETag": f'"{self._tag(match[1])}"', "X-Repo-Commit": SHA})
        else:
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET  # noqa: N815

    def _tag(self, name: str) -> str:
        return hashlib.sha1((self.root / name).read_bytes()).hexdigest()

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, code: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    """A hub with the set me/pets, an empty folder so far, and a client that knows no other hub."""
    handler = type("Served", (Hub,), {"root": tmp_path / "served", "asked": []})
    (tmp_path / "served").mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield handler
    server.shutdown()
    server.server_close()


def rows(path: Path, features: dict[str, Any] | None = None, **columns: list[Any]) -> None:
    import datasets

    path.parent.mkdir(parents=True, exist_ok=True)
    given = {"image": [{"bytes": png(i), "path": None} for i in range(8)], "label": [0, 1] * 4} | columns
    kinds = {"image": datasets.Image(), "label": datasets.Value("int64")} | (features or {})
    datasets.Dataset.from_dict(given, features=datasets.Features(kinds)).to_parquet(str(path))


def test_cifar10_is_a_name_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    located: list[str] = []
    monkeypatch.setattr(sources, "locate_hub", lambda name, config: located.append(name))
    monkeypatch.chdir(tmp_path)
    sources.locate(DataConfig("CIFAR10"))
    save(random_image(0), tmp_path / "CIFAR10/train/cat/0.png")
    assert located == ["uoft-cs/cifar10"]
    assert sources.locate(DataConfig("CIFAR10")).form == "folder" and len(located) == 1  # a folder of that name comes first


def test_parquet_files_are_downloaded_alone_and_their_card_names_the_classes(
    hub: type[Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    for split in ("train", "test"):
        rows(hub.root / f"data/{split}-00000-of-00001.parquet")
    save(random_image(0), hub.root / "assets/figure.png")
    card = (
        "---\ndataset_info:\n  features:\n  - name: label\n    dtype:\n      class_label:\n        names:\n          '0': cat\n"
    )
    (hub.root / "README.md").write_text(card + "          '1': dog\n---\n# Pets\n")
    found = sources.locate(DataConfig("me/pets"))
    assert (found.classes, found.n_train, len(found.labels), found.form) == (("cat", "dog"), 8, 16, "parquet")
    assert found.locations[0] == "me/pets: train row 0" and "class names from README.md: 0 is cat, 1 is dog" in found.notes
    assert not any("figure" in path for path in hub.asked if "/resolve/" in path)
    before = len(hub.asked)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    again = sources.locate(DataConfig("me/pets"))
    assert (again.labels, again.notes, len(hub.asked)) == (found.labels, found.notes, before)


def test_an_earlier_download_is_read_where_there_is_no_network(hub: type[Hub], monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(4):
        save(random_image(i), hub.root / f"{'ab'[i % 2]}/{i}.png")
    assert len(sources.locate(DataConfig("me/pets")).labels) == 4
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    found = sources.locate(DataConfig("me/pets"))
    assert found.locations[0] == "a/0.png"
    assert any(
        note.startswith("read from an earlier download: the Hugging Face hub could not be reached (") for note in found.notes
    )
    with pytest.raises(InputError, match=r"me/cars: this path does not exist, and the Hugging Face hub could not be reached"):
        sources.locate(DataConfig("me/cars"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"me/cars: .* is not asked \(HF_HUB_OFFLINE\), and this set was not downloaded before"):
        sources.locate(DataConfig("me/cars"))


def test_a_set_that_is_not_there(hub: type[Hub]) -> None:
    with pytest.raises(
        InputError, match=r"me/cars: .*the Hugging Face hub has no such set, got RepositoryNotFoundError; check the path"
    ):
        sources.locate(DataConfig("me/cars"))


def test_a_name_that_is_nearly_that_of_a_built_in_set(hub: type[Hub]) -> None:
    with pytest.raises(InputError, match=r"^mnist: .*; check the path; real images that are built in: digits, mnist5k"):
        sources.locate(DataConfig("mnist"))


def test_several_configurations_are_not_downloaded(hub: type[Hub]) -> None:
    for name in ("small", "large"):
        rows(hub.root / name / "train.parquet")
    with pytest.raises(
        InputError, match=r"me/pets: has several configurations, got large, small; download one: hf download .*me/pets"
    ):
        sources.locate(DataConfig("me/pets"))
    assert not any("/resolve/" in path for path in hub.asked)


def test_a_row_without_an_image(hub: type[Hub]) -> None:
    rows(hub.root / "train.parquet", image=[{"bytes": png(0), "path": None}] * 7 + [None])
    assert sources.locate(DataConfig("me/pets")).unreadable[0].reason == "has no image"


def test_a_cell_names_no_file_of_this_machine(hub: type[Hub], tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    save(random_image(0), secret)
    cells = [{"bytes": None, "path": str(secret)}] * 8
    rows(hub.root / "train.parquet", image=cells)
    with pytest.raises(InputError, match=rf"me/pets: the column image lacks the bytes .* in {tmp_path}/cache/.*/{SHA}$"):
        sources.locate(DataConfig("me/pets"))


def test_pages_of_parquet_files_are_checked(hub: type[Hub]) -> None:
    table = pyarrow.table({"image": [png(i) for i in range(8)], "label": [0, 1] * 4, "words": ["a"] * 8})
    pyarrow.parquet.write_table(
        table, hub.root / "train.parquet", use_dictionary=False, column_encoding={"words": "DELTA_BYTE_ARRAY"}
    )
    with pytest.raises(InputError, match=r"me/pets.*DELTA_BYTE_ARRAY.*its files are in"):
        sources.locate(DataConfig("me/pets"))
