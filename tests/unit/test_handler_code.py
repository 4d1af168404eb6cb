"""What a dropper chooses is never a part of what a shell, an interpreter or the like runs."""

import os
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from spoold.handlers import arguments
from spoold.handlers.code import run_as_code

PAGES = Path(__file__).parents[2]
SCRIPT = "/usr/local/bin/tool"


def chosen(command: list[str]) -> str | None:
    found = run_as_code([arguments.parse(text, structured=True) for text in command])
    return found.placeholder.name if found else None


@pytest.mark.parametrize(
    "command",
    [
        ["/bin/sh", "-c", "cat {json.x}"],
        ["bash", "-euc", "echo {json.x}"],
        ["bash", "-euo", "pipefail", "-c", "echo {json.x}"],
        ["bash", "-cx", "echo {json.x}"],
        ["bash", "-c", "-x", "echo {json.x}"],
        ["bash", "-c", "+x", "echo {json.x}"],
        ["bash", "-c", "-o", "pipefail", "echo {json.x}"],
        ["bash", "-oc", "pipefail", "echo {json.x}"],
        ["bash", "-c", "--", "echo {json.x}"],
        ["bash", "-c", "-", "echo {json.x}"],
        ["bash", "--rcfile", "/etc/rc", "-c", "echo {json.x}"],
        ["bash", "--rcfile", "{json.x}", "-c", "true"],
        ["mksh", "-c", "{json.x}"],
        ["busybox", "sh", "-c", "{json.x}"],
        ["sh", "{json.x}"],
        ["/usr/bin/python3", "-W", "ignore", "-c", "print({json.x})"],
        ["python3.11", "-I", "-cprint('{json.x}')"],
        ["python3", "-m", "{json.x}"],
        ["perl", "-ne", "print '{json.x}'"],
        ["perl", "-E", "say {json.x}"],
        ["perl", "-I", "/lib", "-e", "{json.x}"],
        ["perl", "-e", "print 1", "-e", "{json.x}"],
        ["node", "--eval", "{json.x}"],
        ["node", "-p", "{json.x}"],
        ["ruby", "-e", "{json.x}"],
        ["php", "-r", "{json.x}"],
        ["php", "-c", "/etc/php.ini", "-r", "{json.x}"],
        ["fish", "-c", "true", "-c", "{json.x}"],
        ["awk", 'BEGIN {{ print "{json.x}" }}', "{out}"],
        ["gawk", "-v", "x=1", "{json.x}"],
        ["sed", "-n", "s/{json.x}//p"],
        ["/usr/bin/env", "dash", "-c", "'{json.x}'"],
        ["env", "-S", "sh -c {json.x}"],
        ["env", "-C", "/tmp", "{json.x}"],
        ["env", "A={json.x}", SCRIPT],
        ["timeout", "5", "{json.x}"],
        ["timeout", "5", "nice", "bash", "-c", "{json.x}"],
        ["nice", "-n", "5", "{json.x}"],
        ["sudo", "-u", "backup", "bash", "-lc", "{json.x}"],
        ["su", "backup", "-c", "{json.x}"],
        ["xargs", "{json.x}"],
        ["find", "/srv", "-exec", "{json.x}", ";"],
        ["find", "/srv", "-name", "{json.y}", "-exec", "sh", "-c", "{json.x}", ";"],
        ["docker", "exec", "box", "sh", "-c", "{json.x}"],
        ["/opt/runner", "--", "python3", "-c", "{json.x}"],
        ["ssh", "host", "ls", "{json.x}"],
        ["ssh", "host", "sh", "-c", "true", "-", "{json.x}"],
        ["flock", "/run/lock", "{json.x}"],
        ["make", "-f", "/srv/Makefile", "SITE={json.x}"],
        ["nohup", "/usr/bin/ssh", "host", "{json.x}"],
        ["sed", "/opt/letter.txt", "-e", "s/@NAME@/{json.x}/"],
        ["/usr/bin/sed", "-n", "--", "/opt/letter.txt", "{json.x}"],
        ["busybox", "sed", "/opt/letter.txt", "-e", "s/@NAME@/{json.x}/"],
        ["docker", "exec", "box", "sed", "/opt/letter.txt", "-e", "s/@NAME@/{json.x}/"],
        ["su", "root", SCRIPT, "-c", "{json.x}"],
        ["runuser", "root", SCRIPT, "-c", "{json.x}"],
        ["python3", "-m", "timeit", "{json.x}"],
        ["python3", "-m", "timeit", SCRIPT, "{json.x}"],
        ["python3", "-mtimeit", "pass", SCRIPT, "{json.x}"],
        ["python3", "-Im", "cProfile", "{json.x}"],
        ["python3", "-m", "pdb", "-c", "{json.x}"],
        ["python3", "-m", "runpy", "{json.x}"],
        ["python3", "-m", "unittest", "{json.x}"],
        ["python3", "-m", "unittest.main", "{json.x}"],
        ["python3", "-m", "pytest", "{json.x}"],
        ["bash", "-m", "true", "{json.x}"],
        ["bash-static", "-c", "{json.x}"],
        ["mksh-static", "-c", "{json.x}"],
        ["lksh", "-c", "{json.x}"],
        ["posh", "-c", "{json.x}"],
        ["zsh-5.9", "-c", "{json.x}"],
        ["python3-dbg", "-c", "{json.x}"],
        ["/usr/bin/python3.13t", "-c", "{json.x}"],
        ["perl5.36-x86_64-linux-gnu", "-e", "{json.x}"],
        ["luajit-2.1.0-beta3", "-e", "{json.x}"],
        ["original-awk", "{json.x}"],
        ["/opt/venv/bin/python", "-c", "{json.x}"],
        ["/usr/local/bin/watch", "{json.x}"],
        ["docker", "exec", "box", "python3", "{json.x}"],
        ["docker", "exec", "-i", "sh", "-c", "{json.x}"],
        ["find", "/srv", "-print", "-exec", "{json.x}", ";"],
        ["env", "-C", "/srv/node", "{json.x}"],
        ["/opt/tool", "--into", "/usr/bin/php", "-r", "{json.x}"],
        ["python3", "-X", SCRIPT, "{json.x}"],
        ["python3", "-uX", SCRIPT, "{json.x}"],
        ["bash", "-O", SCRIPT, "{json.x}"],
        ["perl", "-I", SCRIPT, "{json.x}"],
        ["awk", "-f", "{json.x}"],
        ["awk", "-f", SCRIPT, "-f", "{json.x}"],
        ["awk", "-f", SCRIPT, "-f{json.x}"],
        ["awk", "-v", SCRIPT, "{json.x}"],
    ],
    ids=" ".join,
)
def test_what_could_be_run_is_refused(command: list[str]) -> None:
    assert chosen(command) in {"json.x", "json.y"}


@pytest.mark.parametrize(
    "command",
    [
        [SCRIPT, "-c", "{json.x}", "--site={json.x}"],
        ["porch", "-c", "{json.x}"],
        ["/bin/sh", "-c", 'cat "$1"', "-", "{json.x}"],
        ["/bin/sh", "-ec", 'cat "$1" > {out}/{job}', "_", "{json.x}"],
        ["bash", "-euo", "pipefail", "-c", 'cat "$1"', "-", "-c", "{json.x}"],
        ["/bin/sh", "-c", "ls {out} {job}"],
        ["/bin/sh", SCRIPT, "-c", "{json.x}"],
        ["bash", "-euo", "pipefail", SCRIPT, "{json.x}"],
        ["bash", "-eu", "--", SCRIPT, "{json.x}"],
        ["python3", "-W", "ignore", "-c", "import tool", "{json.x}"],
        ["python3", "-m", "tool", "-c", "{json.x}"],
        ["python3", "-Im", "timetable", "{json.x}"],
        ["python3", "-m", "tool.trace", "{json.x}"],
        ["perl", SCRIPT, "-e", "{json.x}"],
        ["awk", "-v", "n=1", SCRIPT, "{json.x}"],
        ["env", "-i", "A=b", SCRIPT, "{json.x}"],
        ["nice", "-n", "5", SCRIPT, "{json.x}"],
        ["sudo", "-n", "--", SCRIPT, "{json.x}"],
        ["timeout", "5", "sh", "-c", 'cat "$1"', "-", "{json.x}"],
        ["find", "/srv", "-name", "{json.x}"],
        ["find", "/srv", "-exec", SCRIPT, "{json.x}", ";"],
        ["sh", "-c"],
        ["/usr/bin/pygmentize", "-l", "python", "{json.x}"],
        ["/usr/bin/cp", "-t", "/srv/node", "{json.x}"],
        ["/opt/tool", "--into", "/var/www/php", "-v", "{json.x}"],
        ["/opt/hooks/script", "{json.x}"],
        ["/srv/tools/watch", "{json.x}"],
        ["/opt/tool", "watch", "-v", "{json.x}"],
        ["find", "/var/www/php", "-name", "{json.x}"],
        ["env", "-C", "/srv/node", SCRIPT, "{json.x}"],
        ["python3", "-u", SCRIPT, "{json.x}"],
        ["python3", "-I", "-OO", "-uB", SCRIPT, "-c", "{json.x}"],
        ["awk", "-f", SCRIPT, "{json.x}"],
        ["gawk", "-v", "n=1", "-f", SCRIPT, "--", "-f", "{json.x}"],
    ],
    ids=" ".join,
)
def test_what_comes_behind_what_is_run_is_an_argument(command: list[str]) -> None:
    assert chosen(command) is None


def test_what_is_allowed_of_the_shells_does_not_run_it(tmp_path: Path) -> None:
    """The rule is about their options: what they make of those is asked of themselves."""
    script = tmp_path / "script"
    script.write_text(":\n")
    for shell in filter(shutil.which, ("sh", "bash", "dash", "ksh", "zsh", "mksh", "busybox")):
        start = [shell, "sh"] if shell == "busybox" else [shell]
        runs = 0
        for options in ([], ["-eu"], ["-x"], ["-o", "noglob"], ["-em"], ["-fc"], ["-uc"], ["-c"]):
            for end in (["-c", ":"], [str(script)], ["--", str(script)], [":"]):
                command = [*start, *options, *end, "-", "-c", "{json.x}"]
                if chosen(command) is None:
                    filled = [word.replace("{json.x}", "touch pwned") for word in command]
                    subprocess.run(filled, cwd=tmp_path, check=False, capture_output=True)
                    assert not (tmp_path / "pwned").exists(), command
                    runs += 1
        assert runs > 0, shell


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("timeit", "open('run', 'w')"),
        ("cProfile", "{tmp}/dropped"),
        ("profile", "{tmp}/dropped"),
        ("pdb", "{tmp}/dropped"),
        ("runpy", "dropped"),
        ("doctest", "{tmp}/dropped.py"),
        ("unittest", "dropped"),
    ],
)
def test_modules_that_run_what_they_are_given_are_no_scripts(
    module: str, text: str, tmp_path: Path
) -> None:
    for name in ("dropped", "dropped.py"):
        (tmp_path / name).write_text("open('run', 'w')\n")
    command = ["python3", "-m", module, text.replace("{tmp}", str(tmp_path))]
    subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, input=b"c\nq\n")
    assert (tmp_path / "run").exists()
    assert chosen(["python3", "-m", module, "{json.x}"]) == "json.x"


@pytest.mark.skipif(os.geteuid() != 0, reason="su and runuser ask others for a password")
@pytest.mark.parametrize(
    "command",
    [
        ["sed", "{tmp}/script", "-e", "1e {json.x}"],
        ["su", "root", "{tmp}/script", "-c", "{json.x}"],
        ["runuser", "root", "{tmp}/script", "-c", "{json.x}"],
    ],
    ids=lambda command: command[0],
)
def test_options_are_found_behind_a_path_too(command: list[str], tmp_path: Path) -> None:
    """Why no path makes the rest of these commands harmless."""
    script = tmp_path / "script"
    script.write_text(":\n")
    written = [word.replace("{tmp}", str(tmp_path)) for word in command]
    filled = [word.replace("{json.x}", f"touch {tmp_path}/run") for word in written]
    subprocess.run(filled, stdin=subprocess.DEVNULL, check=False, capture_output=True, timeout=30)
    assert (tmp_path / "run").exists()
    assert chosen(written) == "json.x"


def test_what_is_allowed_of_python_and_awk_does_not_run_it(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("")
    text = {"python3": "open('run', 'w')", "awk": 'BEGIN { system("touch run") }'}
    values = ("u", "B", "E", "s", "S", "I", "O", "OO", "X", "W", "c", "f", "v", "F")
    for program in filter(shutil.which, ("python3", "awk", "mawk", "gawk", "original-awk")):
        dropped = tmp_path / "dropped"
        dropped.write_text(text.get(program, text["awk"]))
        runs = 0
        for value in values:
            for end in (
                ["{json.x}"],
                ["-f", "{json.x}"],
                ["--", "{json.x}"],
                ["--", "-f", "{json.x}"],
            ):
                command = [program, f"-{value}", str(script), *end]
                if chosen(command) is None:
                    for chosen_text in (dropped.read_text(), str(dropped)):
                        filled = [word.replace("{json.x}", chosen_text) for word in command]
                        subprocess.run(
                            filled,
                            cwd=tmp_path,
                            stdin=subprocess.DEVNULL,
                            check=False,
                            capture_output=True,
                        )
                        assert not (tmp_path / "run").exists(), command
                        runs += 1
        assert runs > 0, program


def test_the_examples_are_allowed() -> None:
    examples = PAGES / "spool-layout" / "examples" / "handlers" / "handlers.toml"
    for handler in tomllib.loads(examples.read_text())["handlers"]:
        assert chosen(handler["command"]) is None
