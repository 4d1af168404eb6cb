"""The contracts of sources and sinks, held by the kinds that come with spoold and by an example."""

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import pytest

from spoold.connections import Connections
from spoold.connections.apis import EndpointSettings
from spoold.connections.databases import DatabaseSettings, QuerySettings
from spoold.sinks.sink import Sink
from spoold.sources.files import FilesSource
from spoold.sources.http import HttpSource
from spoold.sources.postgres import PostgresSource
from spoold.sources.s3 import S3Source
from tests.apis import Exchange, serving, settings
from tests.contracts.example.spoold_mailbox import MailboxSource
from tests.contracts.sink import SinkContract
from tests.contracts.source import SourceContract
from tests.integration.row_merges import ALERTS, Place, alert, alerts, lines, own_schema
from tests.sites import spoold
from tests.stores import Bucket

TOP = Path(__file__).parents[2]
EXAMPLE = TOP / "tests" / "contracts" / "example"
PAGE = TOP / "spool-layout" / "SOURCES.md"
MESSAGES = b"".join(
    b"From a@site.example Fri Nov 20 10:00:00 2026\nSubject: %d\n\nbody\n\n" % number
    for number in range(3)
)


class TestFiles(SourceContract):
    kind = FilesSource

    @pytest.fixture
    def connections(self, tmp_path: Path) -> Connections:
        (tmp_path / "some" / "folder").mkdir(parents=True)
        (tmp_path / "some" / "folder" / "file").write_bytes(b"content")
        (tmp_path / "some" / "folder.d").write_bytes(b"sorts before what is in folder/")
        (tmp_path / "some" / "link").symlink_to("folder.d")
        return Connections(roots={"evidence": tmp_path})

    @pytest.fixture
    def spec(self) -> dict[str, Any]:
        return {"kind": "files", "root": "evidence", "path": "some", "into": "files"}

    @pytest.fixture
    def missing(self) -> dict[str, Any]:
        return {"kind": "files", "root": "evidence", "path": "other"}

    @pytest.fixture
    def flawed(self, connections: Connections) -> dict[str, Any]:
        deep = connections.roots["evidence"].joinpath("deep", *["d"] * 130)
        deep.mkdir(parents=True)
        return {"kind": "files", "root": "evidence", "path": "deep"}

    @pytest.fixture
    def large(self, tmp_path: Path) -> dict[str, Any]:
        (tmp_path / "large").mkdir()
        for name in ("one", "two"):
            (tmp_path / "large" / name).touch()
            os.truncate(tmp_path / "large" / name, 2 * self.max_bytes)
        return {"kind": "files", "root": "evidence", "path": "large"}


class TestPostgres(SourceContract):
    kind = PostgresSource
    max_bytes = 8 * 1024 * 1024

    @pytest.fixture
    def connections(self, module_conninfo: str) -> Connections:
        # 40 bytes a line.
        count = 3 * self.max_bytes // 40
        sql = "select i, repeat('x', 30) as text from generate_series(1, {}) i"
        return Connections(
            databases={"soc": DatabaseSettings(url=module_conninfo)},
            queries={
                "few": QuerySettings(database="soc", sql=sql.format(5)),
                "many": QuerySettings(database="soc", sql=sql.format(count)),
                "wrong": QuerySettings(
                    database="soc", sql=f"select 1 / (i - 3) from ({sql.format(5)}) v"
                ),
            },
        )

    @pytest.fixture
    def spec(self) -> dict[str, Any]:
        return {"kind": "postgres", "query": "few"}

    @pytest.fixture
    def missing(self) -> dict[str, Any]:
        return {"kind": "postgres", "query": "wrong"}

    @pytest.fixture
    def large(self) -> dict[str, Any]:
        return {"kind": "postgres", "query": "many"}


class _BesideItsServer(SourceContract):
    """A server of the test's own lives in this process: its sockets are no leak."""

    def descriptors(self) -> int:
        found = []
        for name in os.listdir("/proc/self/fd"):
            with suppress(FileNotFoundError):
                found.append(os.readlink(f"/proc/self/fd/{name}"))
        return sum(not link.startswith(("socket:", "anon_inode:", "/proc/")) for link in found)


class TestHttp(_BesideItsServer):
    kind = HttpSource

    @pytest.fixture
    def connections(self) -> Iterator[Connections]:
        with serving() as api:
            api.answer = self.answer
            download = {"path": "/file/{item.name}", "name": "{item.name}"}
            yield Connections(
                apis={"cases": settings(api.base)},
                endpoints={
                    name: EndpointSettings.model_validate(
                        {"api": "cases", "path": f"/{name}", "download": download}
                    )
                    for name in ("few", "gone", "large", "flawed")
                },
            )

    def answer(self, exchange: Exchange) -> None:
        match exchange.path.split("/")[1:]:
            case ["gone"] | ["file", "missing"]:
                exchange.send("gone", 404)
            case ["file", "large"]:
                size = 3 * self.max_bytes
                exchange.head(200, {"Content-Length": str(size)})
                for _ in range(size // 65536):
                    exchange.raw(bytes(65536))
            case ["file", name]:
                exchange.send(name)
            case [name]:
                names = {"large": ["large"], "flawed": ["a", "missing", "z"]}.get(name, ["b", "a"])
                exchange.send(json.dumps([{"name": each} for each in names]))

    @pytest.fixture
    def spec(self) -> dict[str, Any]:
        return {"kind": "http", "endpoint": "few", "into": "files"}

    @pytest.fixture
    def missing(self) -> dict[str, Any]:
        return {"kind": "http", "endpoint": "gone"}

    @pytest.fixture
    def flawed(self) -> dict[str, Any]:
        return {"kind": "http", "endpoint": "flawed"}

    @pytest.fixture
    def large(self) -> dict[str, Any]:
        return {"kind": "http", "endpoint": "large"}


class TestS3(_BesideItsServer):
    kind = S3Source

    @pytest.fixture
    def connections(self, bucket: Bucket) -> Connections:
        for key in ("few/b", "few/a/b", "few/a-b", "flawed/a", "flawed//b"):
            bucket.put(key, key.encode())
        return bucket.connections()

    @pytest.fixture
    def spec(self) -> dict[str, Any]:
        return {"kind": "s3", "store": "vault", "path": "few", "into": "files"}

    @pytest.fixture
    def missing(self) -> dict[str, Any]:
        return {"kind": "s3", "store": "other"}

    @pytest.fixture
    def flawed(self) -> dict[str, Any]:
        return {"kind": "s3", "store": "vault", "path": "flawed"}


class TestTheExample(SourceContract):
    kind = MailboxSource

    @pytest.fixture
    def connections(self, tmp_path: Path) -> Connections:
        (tmp_path / "box").write_bytes(MESSAGES)
        boxes = {"reports": str(tmp_path / "box"), "gone": str(tmp_path / "gone")}
        return Connections(plugins={"mailbox": boxes})

    @pytest.fixture
    def spec(self) -> dict[str, Any]:
        return {"kind": "mailbox", "box": "reports"}

    @pytest.fixture
    def missing(self) -> dict[str, Any]:
        return {"kind": "mailbox", "box": "gone"}


class TestRowsSink(SinkContract):
    files: ClassVar[dict[str, bytes]] = {
        "alerts/a.jsonl": alerts(5),
        "alerts/b.jsonl": lines(alert(6)),
    }
    refused: ClassVar[dict[str, bytes]] = {"alerts/a.jsonl": alerts(5) + lines(alert(7, more=1))}

    @pytest.fixture
    def place(self, tmp_path: Path, module_conninfo: str) -> Iterator[Place]:
        with own_schema(tmp_path, module_conninfo) as place:
            place.run(f"create table alert {ALERTS}")
            yield place

    @pytest.fixture
    def sink(self, place: Place) -> Sink:
        return place.sink()

    @pytest.fixture
    def state(self, place: Place) -> Callable[[], object]:
        return lambda: place.run("select * from alert order by id")


def test_the_page_shows_the_example_as_it_is() -> None:
    section = PAGE.read_text().partition("## One of your own")[2].partition("\n## ")[0]
    blocks = re.findall(r"^```(?:python|toml)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert (EXAMPLE / "spoold_mailbox.py").read_text() in blocks
    assert any(block in (EXAMPLE / "pyproject.toml").read_text() for block in blocks)


def test_an_installed_kind_of_ones_own_is_used_by_a_request(tmp_path: Path) -> None:
    installed = tmp_path / "installed"
    install(installed)
    (tmp_path / "box").write_bytes(MESSAGES)
    spool = tmp_path / "spool"
    spoold("init", spool, "--site", "site-a", "--algorithm", "ed25519")
    with open(spool / "spoold.toml", "a") as file:
        file.write(f'\n[plugins.mailbox]\nreports = "{tmp_path}/box"\n')
    request = tmp_path / "request-mail.json"
    document = {"type": "spoold.request/1", "action": "bundle"}
    source = {"kind": "mailbox", "box": "reports"}
    request.write_text(json.dumps({**document, "sources": [source]}))
    environment = {"PYTHONPATH": os.pathsep.join([str(installed), str(TOP)])}

    built = json.loads(
        spoold(
            "build", request, "-o", tmp_path / "out", "--spool", spool, "--json",
            environment=environment,
        ).stdout
    )  # fmt: skip
    assert built["entries"] == 3
    assert Path(built["path"]).name.startswith("mailbox-")

    request.write_text(json.dumps({**document, "sources": [{**source, "box": "other"}]}))
    done = spoold("check", request, "--spool", spool, check=False, environment=environment)
    assert "at: sources[0].box" in done.stderr
    done = spoold("check", request, "--spool", spool, check=False)
    assert done.returncode == 4, "without the package there is no such kind"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("mailbox", "spoold_nothing:Kind", "the kind mailbox of the package spoold-mailbox"),
        ("mailbox", "spoold_mailbox:Missing", "has no attribute 'Missing'"),
        ("mailbox", "spoold_mailbox:mbox", "is no class with a model `Spec`"),
        ("files", "spoold_mailbox:MailboxSource", "has a kind of that name, too"),
    ],
)
def test_a_package_that_cannot_be_used_is_named(
    tmp_path: Path, name: str, value: str, said: str
) -> None:
    installed, spool = tmp_path / "installed", tmp_path / "spool"
    install(installed)
    (points,) = installed.glob("*.dist-info/entry_points.txt")
    points.write_text(f"[spoold.sources]\n{name} = {value}\n")
    spoold("init", spool, "--site", "site-a", "--algorithm", "ed25519")
    environment = {"PYTHONPATH": os.pathsep.join([str(installed), str(TOP)])}
    request = TOP / "spool-layout" / "examples" / "request-demo.json"
    for command in (["check", request, "--spool", spool], ["run", "--once", spool]):
        done = spoold(*command, check=False, environment=environment)
        assert done.returncode == 78
        assert said in done.stderr
        assert "spoold-mailbox" in done.stderr
        assert "Traceback" not in done.stderr


def install(folder: Path) -> None:
    """Put the example where Python finds it, with what pip would write about it."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    about = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    about.mkdir(parents=True)
    (folder / "spoold_mailbox.py").write_bytes((EXAMPLE / "spoold_mailbox.py").read_bytes())
    (about / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
    (about / "entry_points.txt").write_text("\n".join(lines) + "\n")


def test_the_example_needs_nothing_but_spoold() -> None:
    done = subprocess.run([sys.executable, "-c", "import spoold_mailbox"], cwd=EXAMPLE, check=False)
    assert done.returncode == 0
