"""What an endpoint's answer becomes: lines, a file, or lines and a file for each item."""

import time
from collections.abc import Iterator, Mapping
from contextlib import closing, nullcontext
from typing import Final

from spoold import canonical, errors
from spoold.bundle.entry import ByteStream, SourceEntry
from spoold.connections.apis import ApiSettings, DownloadSettings, EndpointSettings
from spoold.connections.parameters import Value
from spoold.connections.row_types import ROWS_MEDIA_TYPE, ROWS_SUFFIX
from spoold.errors import SpooldError
from spoold.sources.http.addresses import path_of, query_of, target_of
from spoold.sources.http.client import ApiClient, Pace, RefusedError
from spoold.sources.http.download import Download, Wanted
from spoold.sources.http.files import ItemFile, ItemFiles, file_of, name_of
from spoold.sources.http.listing import Lines, Listing
from spoold.sources.http.pages import NoPageError
from spoold.sources.source import Gathering, Problem, made_up

_SHOWN: Final = 200
_KEY_STATUSES: Final = frozenset({401, 403})


class Fetch:
    """One endpoint, asked once with given values."""

    def __init__(
        self,
        endpoint: EndpointSettings,
        api: ApiSettings,
        values: Mapping[str, Value],
        gathering: Gathering,
        *,
        label: str,
        name: str,
        into: str | None,
    ) -> None:
        self._endpoint, self._api, self._values = endpoint, api, values
        self._gathering, self._label = gathering, label
        self._into = into
        self._lines_path = self._path(name + ROWS_SUFFIX)
        self.warnings: list[str] = []

    def entries(self, on_problem: Problem) -> Iterator[SourceEntry]:
        """Yield the entries, see `HttpSource.entries`."""
        pace = self._gathering.shared(
            ("http", self._endpoint.api),
            lambda: nullcontext(Pace(self._api.requests_per_second)),
        )
        with ApiClient(
            self._api, pace, check=self._gathering.check, count=self._gathering.count
        ) as client:
            if self._endpoint.file:
                yield self._file(client)
            elif self._endpoint.download is None:
                yield self._lines(Lines(self._listing(client)))
            else:
                yield from self._lines_and_files(client, self._endpoint.download, on_problem)

    def _file(self, client: ApiClient) -> SourceEntry:
        query = query_of(self._endpoint.query, self._values, {})
        target = target_of(path_of(self._api.base, self._endpoint.path, self._values), query)
        path = self._path(name_of(self._endpoint.file, self._values))
        return self._downloaded(client, Wanted(target, path))

    def _lines_and_files(
        self, client: ApiClient, download: DownloadSettings, on_problem: Problem
    ) -> Iterator[SourceEntry]:
        with closing(ItemFiles(self._gathering.scratch)) as files:
            self._read_list(client, download, files)
            lines_wait = True
            for file in files:
                path = self._path(file.name)
                if lines_wait and path > self._lines_path:
                    lines_wait = False
                    yield self._lines(files.lines.reopened(), files.lines.bytes)
                entry = self._item_file(client, file, path, on_problem)
                if entry is not None:
                    yield entry
            if lines_wait:
                yield self._lines(files.lines.reopened(), files.lines.bytes)

    def _read_list(self, client: ApiClient, download: DownloadSettings, files: ItemFiles) -> None:
        for item in self._listing(client).items():
            try:
                file = file_of(item, download, self._api.base, self._values)
            except NoPageError as error:
                what = client.shown(str(error))[:_SHOWN]
                raise SpooldError(
                    errors.API_ANSWER_INVALID, f"{self._endpoint.path}: {what}"
                ) from error
            self._require_other(file)
            files.add(item, file)
        files.sort()
        if files.unchecked:
            self.warnings.append(
                f"{self._label}: {files.unchecked} of {files.lines.count} items give no SHA-256: "
                "their files were compared with nothing"
            )

    def _require_other(self, file: ItemFile) -> None:
        if self._path(file.name) == self._lines_path:
            raise SpooldError(
                errors.API_ANSWER_INVALID,
                f"an item's file is called {canonical.text(file.name)}, as all items' lines are",
            )

    def _item_file(
        self, client: ApiClient, file: ItemFile, path: bytes, on_problem: Problem
    ) -> SourceEntry | None:
        try:
            return self._downloaded(client, Wanted(file.path, path, file.size, file.sha256))
        except RefusedError as error:
            if error.status in _KEY_STATUSES:
                raise
            shown = canonical.text(path)
            on_problem(
                path,
                SpooldError(
                    errors.SOURCE_UNREADABLE,
                    f"{shown}: {error.message}",
                    hint='the API lists it and does not give it: "on_error": "skip" leaves it out',
                    at=shown,
                ),
            )
        except SpooldError as error:
            if error.code is not errors.SOURCE_CHANGED:
                raise
            on_problem(path, error)
        return None

    def _listing(self, client: ApiClient) -> Listing:
        return Listing(client, self._api.base, self._endpoint, self._values)

    def _lines(self, content: ByteStream, size: int | None = None) -> SourceEntry:
        return self._entry(self._lines_path, content, size, ROWS_MEDIA_TYPE)

    def _downloaded(self, client: ApiClient, wanted: Wanted) -> SourceEntry:
        content = Download(client, wanted)
        return self._entry(
            wanted.path,
            content,
            content.size,
            content.media_type,
            content.mtime_ns,
        )

    def _entry(
        self,
        path: bytes,
        content: ByteStream,
        size: int | None,
        media_type: str | None,
        mtime_ns: int | None = None,
    ) -> SourceEntry:
        return made_up(
            path,
            self._label,
            content,
            mtime_ns=time.time_ns() if mtime_ns is None else mtime_ns,
            size=size,
            media_type=media_type,
        )

    def _path(self, name: str) -> bytes:
        return "/".join(filter(None, (self._into, name))).encode()
