"""Where an API is asked: a path and query from a template and values, a link that it gives. Pure.

Only a target, path and query, ever comes out of here; host and port are those of `[apis]`, so what
a request or an answer says can never lead to another machine.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from spoold import canonical, errors
from spoold.connections.apis import EndpointSettings
from spoold.connections.parameters import Value, as_text
from spoold.errors import SpooldError

_PLACEHOLDER: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_.-]*)\}")
_PORTS: Final = {"http": 80, "https": 443}
_MAX_TARGET: Final = 8192
_SHOWN: Final = 200
_USER: Final = re.compile(r"//[^/]*@")
# What RFC 3986 lets stand in a path and query; everything else of a link is escaped.
_AS_IT_IS: Final = "%/?:@!$&'()*+,;=-._~[]"
_NEXT: Final = re.compile(r'<([^<>]*)>((?:[^,"<]|"(?:[^"\\]|\\.)*")*)')
_ATTRIBUTE: Final = re.compile(r';\s*([^\s=;,"]+)\s*(?:=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;,"]*)))?')


@dataclass(frozen=True, slots=True)
class Origin:
    """The one place that is spoken to."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, base: str) -> "Origin":
        """The origin of a base address."""
        parts = urlsplit(base)
        assert parts.hostname is not None
        return cls(parts.scheme, parts.hostname, parts.port or _PORTS[parts.scheme])

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def fill_in(
    template: str,
    values: Mapping[str, Value],
    shown: Callable[[Value], str] = as_text,
) -> str:
    """The template with each `{name}` or `{item.field}` that has a value replaced by it."""
    return _PLACEHOLDER.sub(
        lambda match: shown(values[match[1]]) if match[1] in values else match[0], template
    )


def path_of(base: str, template: str, values: Mapping[str, Value]) -> str:
    """The path of a template beneath the base's; no value can leave its segment.

    Raises parameters-invalid where a segment would be empty, `.` or `..`.
    """
    filled = fill_in(template, values, _escaped)
    for asked, segment in zip(template.split("/"), filled.split("/"), strict=True):
        if segment in {"", ".", ".."} and asked != segment:
            raise SpooldError(
                errors.PARAMETERS_INVALID,
                f"{asked} in the endpoint's path would be {segment or 'empty'}",
                at="parameters",
            )
    return urlsplit(base).path + filled


def query_of(
    templates: Mapping[str, str], values: Mapping[str, Value], more: Mapping[str, str]
) -> str:
    """The query of an endpoint and, behind it, of a page."""
    pairs = [
        # The template's own text is escaped too, but for the braces of its placeholders.
        (key, fill_in(quote(template, safe="{}"), values, _escaped))
        for key, template in templates.items()
    ]
    pairs += [(key, quote(text, safe="")) for key, text in more.items()]
    return "&".join(f"{quote(key, safe='')}={value}" for key, value in pairs)


def target_of(path: str, query: str) -> str:
    """Path and query. Raises parameters-invalid where they are longer than servers take."""
    target = f"{path or '/'}?{query}" if query else path or "/"
    if len(target) > _MAX_TARGET:
        raise SpooldError(
            errors.PARAMETERS_INVALID,
            f"the address would have {len(target)} characters, more than {_MAX_TARGET}",
            at="parameters",
        )
    return target


def require_address(base: str, endpoint: EndpointSettings, values: Mapping[str, Value]) -> None:
    """Raise parameters-invalid where the values make no address."""
    target_of(path_of(base, endpoint.path, values), query_of(endpoint.query, values, {}))


def followed(
    origin: Origin, target: str, link: str, shown: Callable[[str], str] = canonical.text
) -> str:
    """The target that a link or a redirect leads to, seen from `target`.

    Raises api-redirect where it leads to another scheme, host or port; what `shown` makes of the
    link is in its message.
    """
    try:
        parts = urlsplit(urljoin(f"{origin}{target}", link))
        there = _origin_of(parts)
    except ValueError:
        parts, there = urlsplit(""), None
    if there != origin or "@" in parts.netloc:
        # A user, a query and a fragment hold what only the other place should know: a signature.
        place = _USER.sub("//", re.split("[?#]", link, maxsplit=1)[0])
        raise SpooldError(
            errors.API_REDIRECT,
            f"{shown(target.partition('?')[0])} leads to {shown(place)[:_SHOWN]}, which is not on "
            f"{origin}",
        )
    path = quote(parts.path or "/", safe=_AS_IT_IS)
    query = quote(parts.query, safe=_AS_IT_IS)
    found = f"{path}?{query}" if query else path
    if len(found) > _MAX_TARGET:
        raise SpooldError(errors.API_ANSWER_INVALID, "it links to an address that is too long")
    return found


def next_link(header: str) -> str | None:
    """The address of `rel=next` in a Link header (RFC 8288, section 3)."""
    for address, attributes in _NEXT.findall(header):
        for name, quoted, plain in _ATTRIBUTE.findall(attributes):
            if name.lower() == "rel":  # of several, the first one counts
                if "next" in (quoted or plain).lower().split():
                    return str(address)
                break
    return None


def _origin_of(parts: SplitResult) -> Origin | None:
    if parts.scheme not in _PORTS or not parts.hostname:
        return None
    return Origin(parts.scheme, parts.hostname, parts.port or _PORTS[parts.scheme])


def _escaped(value: Value) -> str:
    try:
        return quote(as_text(value), safe="")
    except UnicodeEncodeError as error:
        raise SpooldError(
            errors.PARAMETERS_INVALID, "a value holds half a character", at="parameters"
        ) from error
