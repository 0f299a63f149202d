"""scripts/package: what is in the distributions, and that recfs installed from its wheel mounts and tells of itself."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from recfs import __version__
from recfs.cli.main import cli
from recfs.cli.mount_helper import OF_MOUNT, OPTIONS, REASONS
from tests.helpers.userns import LEAVE_FUSE_MOUNTS

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 300
REQUESTS = {".TH", ".SH", ".SS", ".PP", ".TP", ".IP", ".RS", ".RE", ".EX", ".EE"}
"""All of man(7) that the pages use."""

pytestmark = [pytest.mark.slow, pytest.mark.needs("git", "bash")]


@dataclass(frozen=True, slots=True)
class Built:
    """What scripts/package has made."""

    wheel: Path
    sdist: Path

    def in_wheel(self) -> set[str]:
        with zipfile.ZipFile(self.wheel) as packed:
            return set(packed.namelist())

    def in_sdist(self) -> set[str]:
        with tarfile.open(self.sdist) as packed:
            return {each.name.partition("/")[2] for each in packed if each.isfile()}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    out = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [ROOT / "scripts/package", "--out", out], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = out.glob("*.whl")
    (sdist,) = out.glob("*.tar.gz")
    assert sorted(done.stdout.split()) == sorted([str(wheel), str(sdist)])
    return Built(wheel, sdist)


@pytest.fixture(scope="module")
def prefix(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with recfs from the wheel. What recfs needs is that of the checkout's own environment."""
    made = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", made], check=True)
    pip = [sys.executable, "-m", "pip", "--python", made / "bin/python", "install", "--quiet"]
    subprocess.run([*pip, "--no-index", "--no-deps", built.wheel], check=True, timeout=TIMEOUT_S)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(made)}))
    # What is installed there is found by this line; that directory's own .pth files, recfs's among them, are not read.
    (packages / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    return made


def tracked(*below: str) -> set[str]:
    listed = subprocess.run(["git", "ls-files", *below], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(listed.stdout.split("\n")) - {""}


def test_the_wheel_has_all_of_the_program_and_nothing_else(built: Built) -> None:
    there = {name for name in built.in_wheel() if name.startswith("recfs/")}
    extensions = {name for name in there if name.endswith(".so")}
    assert {name.split(".")[0] for name in extensions} == {"recfs/fuse/_fuse_reply", "recfs/stores/_many"}
    sources = {name for name in tracked("recfs") if not name.endswith((".c", ".h"))}
    assert there - extensions == sources
    assert {name.split("/")[0] for name in built.in_wheel()} == {
        "recfs",
        f"recfs-{__version__}.data",
        f"recfs-{__version__}.dist-info",
    }


def test_the_sdist_has_all_that_git_has(built: Built) -> None:
    missing = tracked() - built.in_sdist()
    assert missing == set()
    made = {name for name in built.in_sdist() - tracked() if not name.startswith(("recfs.egg-info/", "share/"))}
    assert made == {"PKG-INFO", "setup.cfg"}


def test_the_program_runs_from_where_it_is_installed(prefix: Path) -> None:
    done = subprocess.run([prefix / "bin/recfs", "--version"], cwd="/", capture_output=True, text=True, check=True)
    assert done.stdout == f"recfs {__version__}\n"
    where = (
        "import recfs, recfs.fuse._fuse_reply as c, recfs.stores._many as d;"
        " print(recfs.__file__, c.__file__, d.__file__, sep='\\n')"
    )
    done = subprocess.run([prefix / "bin/python", "-c", where], cwd="/", capture_output=True, text=True, check=True)
    assert [Path(line).is_relative_to(prefix) for line in done.stdout.splitlines()] == [True] * 3


def test_what_systems_look_for_is_below_the_prefix(prefix: Path) -> None:
    share = prefix / "share"
    for source in ("recfs.conf.example", "requirements.lock", *tracked("systemd")):
        assert (share / "recfs" / source).read_bytes() == (ROOT / source).read_bytes()
    for source in (*tracked("docs"), "CHANGELOG.md", "README.md"):
        assert (share / "doc/recfs" / source.removeprefix("docs/")).read_bytes() == (ROOT / source).read_bytes()


# --- man pages -----------------------------------------------------------------------------------------------------


def test_every_command_has_a_man_page(prefix: Path) -> None:
    there = {path.name for path in (prefix / "share/man/man1").iterdir()}
    assert there == {"recfs.1"} | {f"recfs-{name}.1" for name in cli.commands}


def test_man_pages_are_written_in_the_language_of_man(prefix: Path) -> None:
    pages = sorted(prefix.glob("share/man/man*/*"))
    assert pages
    for path in pages:
        text = path.read_text("ascii")
        requests = {line.split()[0] for line in text.splitlines() if line.startswith((".", "'"))}
        assert requests <= REQUESTS | {'.\\"'}, path
        assert text.count(".EX\n") == text.count(".EE\n")
        assert f'"recfs {__version__}"' in text
        assert re.search(r"^\.SH NAME\n\S+ \\- \S", text.replace("recfs\\-", "recfs-"), re.MULTILINE), path


def test_the_man_page_of_a_command_says_what_its_help_does(prefix: Path) -> None:
    text = (prefix / "share/man/man1/recfs-quota.1").read_text()
    assert ".SS set\nSet limits of USER, who need not exist yet.\n" in text
    assert ".TP\n\\fB\\-\\-max\\-files N\\fR\nNumber of files.\n" in text
    assert "recfs \\fR" not in text


def test_the_man_page_of_the_settings_has_each_of_them_once(prefix: Path) -> None:
    text = (prefix / "share/man/man5/recfs.conf.5").read_text()
    told = [line[3:].split()[0] for line in text.splitlines() if re.match(r"\\fB\w+ = ", line)]
    written = re.findall(r"^#?(\w+) *=", (ROOT / "recfs.conf.example").read_text(), re.MULTILINE)
    assert told == written
    sections = re.findall(r"^#?\[+(\w+)\]+$", (ROOT / "recfs.conf.example").read_text(), re.MULTILINE)
    assert re.findall(r"^\.SH \[(\w+)\]$", text, re.MULTILINE) == sections


def test_the_man_page_of_the_mount_helper_names_every_option(prefix: Path) -> None:
    text = (prefix / "share/man/man8/mount.recfs.8").read_text().replace("\\-", "-")
    for option in (*OPTIONS, *REASONS):
        assert f"\\fB{option}\\fR\n" in text, option
    for option in OF_MOUNT:
        assert re.search(rf"\b{option}[,.]", text), option


# --- completions ---------------------------------------------------------------------------------------------------


def test_bash_completes_commands_and_options(prefix: Path) -> None:
    script = prefix / "share/bash-completion/completions/recfs"

    def completed(*words: str) -> list[str]:
        line = " ".join(words)
        ask = f"source {script}; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _recfs_completion recfs"
        done = subprocess.run(
            ["bash", "-c", f"{ask}; printf '%s\\n' \"${{COMPREPLY[@]}}\""],
            env={"PATH": f"{prefix / 'bin'}:{os.environ['PATH']}"}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout.split()

    assert completed("recfs", "quota", "s") == ["set", "show"]
    assert completed("recfs", "quota", "set", "--max-f") == ["--max-files", "--max-file-size"]


@pytest.mark.parametrize(
    ("place", "begins"),
    [("zsh/site-functions/_recfs", "#compdef recfs\n"), ("fish/vendor_completions.d/recfs.fish", "function _recfs")],
)
def test_other_shells_ask_the_program_too(prefix: Path, place: str, begins: str) -> None:
    text = (prefix / "share" / place).read_text()
    assert text.startswith(begins)
    assert "_RECFS_COMPLETE=" in text


# --- a mount -------------------------------------------------------------------------------------------------------


@pytest.fixture
def mounted(prefix: Path, tmp_path: Path) -> Iterator[Path]:
    mount = tmp_path / "mount"
    mount.mkdir()
    recfs = prefix / "bin/recfs"
    # From a directory with nothing in it: what lies in the checkout must not be found by chance.
    subprocess.run([recfs, "mount", "--root", tmp_path / "store", "-d", mount], cwd="/", check=True, timeout=TIMEOUT_S)
    try:
        yield mount
        subprocess.run([recfs, "umount", mount], cwd="/", check=True, timeout=TIMEOUT_S)
    finally:
        if os.path.ismount(mount):
            subprocess.run(["fusermount3", "-uz", mount], check=False)


@pytest.mark.fuse
def test_an_installed_recfs_mounts_and_keeps_files(prefix: Path, mounted: Path, tmp_path: Path) -> None:
    recording = mounted / "users/5/recordings/142"
    recording.mkdir(parents=True)
    shutil.copy(ROOT / "README.md", recording / "source.mp4")
    subprocess.run([prefix / "bin/recfs", "drain", "--root", mounted], cwd="/", check=True, timeout=TIMEOUT_S)
    asked = subprocess.run(
        [prefix / "bin/recfs", "--json", "status", mounted], cwd="/", capture_output=True, text=True, check=True
    )
    status = json.loads(asked.stdout)
    assert status["states"]["committed"] == 1
    assert (tmp_path / "store/users/5/recordings/142/source.mp4").read_bytes() == (ROOT / "README.md").read_bytes()
    running = Path(f"/proc/{status['pid']}/cmdline").read_bytes().split(b"\0")
    assert running[0] == os.fsencode(prefix / "bin/python")


# --- the Debian package ----------------------------------------------------------------------------------------------

DEBIAN = ROOT / "packaging/debian"


@pytest.fixture
def debian_tools(tmp_path: Path) -> dict[str, str]:
    """An environment in which the maintainer scripts find Debian's tools, which only note how they are called."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("py3compile", "py3clean", "systemctl", "recfs", "deb-systemd-invoke"):
        (programs / name).write_text(f'#!/bin/sh\necho "{name} $*" >>{tmp_path}/called\n')
        (programs / name).chmod(0o755)
    (tmp_path / "called").touch()
    lists = """
case "$*" in
list-units*recfs-serve@*)
  echo "recfs-serve@main.service loaded active running recfs gateway main"
  echo "recfs-serve@second.service loaded active running recfs gateway second" ;;
list-units*recfs@*) echo "recfs@main.service loaded active running recfs store main" ;;
esac
"""
    with (programs / "systemctl").open("a") as script:
        script.write(lists)
    return {"PATH": f"{programs}:{os.environ['PATH']}"}


@pytest.mark.parametrize("script", ["recfs.postinst", "recfs.prerm", "recfs.postrm"])
def test_maintainer_scripts_parse(script: str) -> None:
    subprocess.run(["sh", "-n", DEBIAN / script], check=True)
    assert "#DEBHELPER#" in (DEBIAN / script).read_text()


def test_the_package_is_not_removed_under_a_mount_that_was_made_by_hand(
    tmp_path: Path, debian_tools: dict[str, str]
) -> None:
    """An upgrade leaves it alone."""
    remove, upgrade = (["sh", DEBIAN / "recfs.prerm", what] for what in ("remove", "upgrade"))
    daemon = ["/usr/lib/recfs/bin/python", "-c", "read line", "-m", "recfs", "mount", "--root", "/srv/recfs"]
    with subprocess.Popen(daemon, executable="/bin/sh", stdin=subprocess.PIPE) as serving:  # its name is what counts
        try:
            refused = subprocess.run(remove, env=debian_tools, capture_output=True, text=True, check=False)
            assert refused.returncode == 1
            assert f"still serves mounts (processes {serving.pid})" in refused.stderr
            assert "py3clean" not in (tmp_path / "called").read_text()
            subprocess.run(upgrade, env=debian_tools, check=True)
        finally:
            serving.kill()
    subprocess.run(remove, env=debian_tools, check=True)
    assert "py3clean -p recfs" in (tmp_path / "called").read_text()
    assert "rm " not in (DEBIAN / "recfs.prerm").read_text()


@pytest.mark.needs("unshare")
@pytest.mark.parametrize("before", ["0.9-1+deb12", ""])
def test_after_an_upgrade_new_processes_go_on_with_the_mounts_of_the_unit(
    tmp_path: Path, debian_tools: dict[str, str], before: str
) -> None:
    _configured(debian_tools, before)
    called = (tmp_path / "called").read_text().splitlines()
    assert "py3compile -p recfs /usr/lib/recfs" in called
    assert called.count("recfs upgrade --config /etc/recfs/main.conf") == int(bool(before))
    assert not [line for line in called if re.search(r"\b(stop|restart|kill)\b", line) and "recfs-serve@" not in line]


@pytest.mark.needs("unshare")
@pytest.mark.parametrize("fails", [False, True])
def test_after_an_upgrade_gateways_are_restarted_behind_their_daemons(
    tmp_path: Path, debian_tools: dict[str, str], fails: bool
) -> None:
    """Those that run, as Debian's policy allows; one that does not start keeps neither the others nor the package."""
    if fails:
        with (tmp_path / "bin/deb-systemd-invoke").open("a") as script:
            script.write("exit 1\n")
    done = _configured(debian_tools, "0.9-1+deb12")
    called = (tmp_path / "called").read_text().splitlines()
    restarts = [f"deb-systemd-invoke try-restart recfs-serve@{each}.service" for each in ("main", "second")]
    assert [line for line in called if "deb-systemd-invoke" in line] == restarts
    assert called.index("recfs upgrade --config /etc/recfs/main.conf") < called.index(restarts[0])
    assert ("recfs-serve@second.service: it was not restarted" in done) == fails


@pytest.mark.needs("unshare")
def test_a_first_installation_restarts_nothing(tmp_path: Path, debian_tools: dict[str, str]) -> None:
    _configured(debian_tools, "")
    assert "restart" not in (tmp_path / "called").read_text()


def _configured(tools: dict[str, str], before: str) -> str:
    """What postinst says where systemd runs; *before*: the version that it follows, or none."""
    with_systemd = 'mount -t tmpfs none /run; mkdir -p /run/systemd/system; exec sh "$@"'
    script = ["sh", DEBIAN / "recfs.postinst", "configure", before]
    apart = ["unshare", "-m", "--propagation", "slave", "sh", "-ec"]
    return subprocess.run(
        [*apart, LEAVE_FUSE_MOUNTS + with_systemd, *script], env=tools, check=True, capture_output=True, text=True
    ).stdout


def test_the_package_has_the_version_and_names_of_the_program() -> None:
    control = (DEBIAN / "control").read_text()
    assert "Package: recfs\n" in control
    assert "${recfs:Python}" in control
    assert "python3:any" in control, "it has py3compile and py3clean, which the maintainer scripts call"
    rules = (DEBIAN / "rules").read_text()
    assert "--no-stop-on-upgrade" in rules
    assert "--no-restart-after-upgrade" in rules
    assert os.access(DEBIAN / "rules", os.X_OK)
    assert os.access(DEBIAN / "install-program", os.X_OK)
    assert os.access(ROOT / "packaging/deb", os.X_OK)
    refused = subprocess.run([ROOT / "packaging/deb"], capture_output=True, text=True, check=False)
    assert (refused.returncode, "no unpacked source distribution" in refused.stderr) == (1, True)
