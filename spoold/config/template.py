"""The `spoold.toml` that `init` writes: the site, and every other key as a comment. Pure."""

from pydantic.fields import FieldInfo

from spoold.config.sections import NAMED, SECTIONS, File
from spoold.section import Section

_HEAD = """\
# Configuration of this spool. Every key stands here with its default, as a comment: to change one,
# take the # away, there and before the [section] above it. Or add a section at the end.
# The environment wins over this file: SPOOLD_<SECTION>_<KEY>, for example SPOOLD_WORKERS_COUNT=4.
# `spoold config` shows what is in force and where it came from.
"""

_ROOTS = """\
#[roots]                                # folders that requests may name as "root", nothing else
#evidence = "/srv/evidence"             # a relative one begins at this file's folder
"""

_CONNECTIONS = """\
# Databases, queries, APIs, endpoints, stores, recipes and sinks are sections of their own, each
# with a name: README.md has them, and a whole example.
"""

_HANDLERS = """\
#[[handlers]]                           # a program that is run for each drop of a name: README.md
#pattern = "intent-*.json"              # has all keys; there may be several of these sections
#command = ["/usr/local/bin/porch", "-intent", "{file}", "-out", "{out}"]
"""


def template(site: str) -> str:
    """The commented configuration of a new site."""
    lines = [_HEAD]
    for name, field in File.model_fields.items():
        if name == "site":
            lines.append(_line(name, field, site))
        elif name == "roots":
            lines += ["", _ROOTS.rstrip()]
        elif name == NAMED[0]:
            lines += ["", _CONNECTIONS.rstrip()]
        elif name in NAMED or name == "sinks":
            continue
        elif name == "handlers":
            lines += ["", _HANDLERS.rstrip()]
        elif name in SECTIONS:
            lines += ["", *_section(name, field.default)]
        else:
            lines.append("#" + _line(name, field, field.default))
    return "\n".join(lines) + "\n"


def toml_value(key: str, value: object) -> str:
    """The value of a dotted key as the file has it: sizes and durations with their unit."""
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and key.endswith("_bytes"):
        return f'"{_largest(value, _SIZES) if value else "0B"}"'  # not 0TiB, which is true too
    if isinstance(value, int) and key.startswith("retention.") and not key.endswith("_keep"):
        return f'"{_largest(value, _DURATIONS)}"'
    return _collection(value) if isinstance(value, list | dict) else str(value)


def _collection(value: list[object] | dict[str, object]) -> str:
    if isinstance(value, list):
        return f"[{', '.join(toml_value('', each) for each in value)}]"
    pairs = (f"{name} = {toml_value('', each)}" for name, each in value.items())
    return f"{{ {', '.join(pairs)} }}"


_SIZES = (("TiB", 1024**4), ("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024), ("B", 1))
_DURATIONS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


def _largest(value: int, units: tuple[tuple[str, int], ...]) -> str:
    return next(f"{value // factor}{unit}" for unit, factor in units if value % factor == 0)


def _section(name: str, section: Section) -> list[str]:
    model = type(section)
    head = f"#[{name}]".ljust(40) + f"# {model.__doc__}"
    return [
        head,
        *(
            "#" + _line(f"{name}.{key}", field, field.default)
            for key, field in model.model_fields.items()
        ),
    ]


def _line(key: str, field: FieldInfo, value: object) -> str:
    return f"{key.rpartition('.')[2]} = {toml_value(key, value)}".ljust(39) + (
        f" # {field.description}"
    )
