"""mount.recfs: the options that mount(8) passes, by its contract with helpers."""

import pytest

from recfs.cli.common.exits import ExitCode
from recfs.cli.mount_helper import REASONS, Refused, exit_code, parse, run, split, wanted


def test_the_command_line_of_mount() -> None:
    asked = parse(["/srv/store", "/mnt", "-n", "-sfv", "-o", "rw,config=/etc/recfs/a.conf,nofail", "-t", "fuse.recfs"])
    assert (asked.source, asked.target, asked.sloppy, asked.fake, asked.verbose) == ("/srv/store", "/mnt", *[True] * 3)
    assert asked.options == ["rw", "config=/etc/recfs/a.conf", "nofail"]
    # In any order, with the value right at the letter, several times.
    asked = parse(["-orw,nofail", "-r", "/srv/store", "-o", "_netdev", "/mnt", "-w"])
    assert (asked.source, asked.target, asked.options) == ("/srv/store", "/mnt", ["rw", "nofail", "ro", "_netdev"])


def test_options_are_split_outside_of_quotes() -> None:
    assert split('a="x,y",b,,c') == ["a=x,y", "b", "c"]


def test_what_becomes_of_options() -> None:
    options = (
        "defaults,rw,_netdev,nofail,x-systemd.automount,comment=a,allow_other,config=/c,min_free=5,ro,noexec,create"
    )
    found = wanted(parse(["/s", "/m", "-o", options]))
    assert found.arguments == ["--set", "allow_other=true", "--config", "/c", "--set", "min_free=5"]
    assert (found.flags, found.creates) == (["ro", "noexec"], True)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["/s"], "usage: mount.recfs"),
        (["/s", "/m", "-x"], "unknown option -x"),
        (["/s", "/m", "-N", "5"], "nsenter -m"),
        (["/s", "/m", "-t", "ext4"], "type ext4 is not recfs"),
        (["/s", "/m", "-o", "remount,ro"], "cannot be changed by remounting it"),
        (["/s", "/m", "-o", "bind"], "leave out -t recfs"),
        (["/s", "/m", "-o", "bogus"], "unknown option bogus"),
        (["/s", "/m", "-o", "min_fre=5"], "did you mean min_free?"),
        (["/s", "/m", "-o", "config=recfs.conf"], "write the path in full"),
        (["/s", "/m", "-o", "sync"], "sync: recfs does not write through for a whole mount"),
        (["/s", "/m", "-s", "-o", "dirsync"], "leave it out"),
        (["/s", "/m", "-o", "root=/other"], "the source of the mount says which store it is"),
        (["/s", "/m", "-o", "mountpoint=/m=x"], "mountpoint=/m=x: the directory of the mount says where it is"),
        (["/s", "/m", "-o", "existing=false"], "a store is made with the option `create`"),
        (["/s", "/m", "-o", 'context="system_u:object_r:tmp_t:s0"'], "labels of SELinux"),
        (["/s", "/m", "-o", "loop"], "no image or device"),
        (["/s", "/m", "-o", "usrquota"], "quota.max_bytes=SIZE"),
        (["/s", "/m", "-o", "suid"], "set-user-ID bits never count"),
        (["store", "/m"], "the source is the root of the store"),
    ],
)
def test_what_is_refused(arguments: list[str], told: str) -> None:
    with pytest.raises(Refused) as caught:
        run(arguments)
    assert told in str(caught.value)


INDEPENDENT = """
    async atime noatime auto noauto context= fscontext= defcontext= rootcontext= defaults dev nodev diratime nodiratime
    dirsync exec noexec group iversion noiversion mand nomand _netdev nofail relatime norelatime strictatime
    nostrictatime lazytime nolazytime suid nosuid silent loud owner remount ro rw sync user nouser users user=5
    X-mount.mkdir x-systemd.automount x-gvfs-hide comment=a=b nosymfollow
"""
"""mount(8), FILESYSTEM-INDEPENDENT MOUNT OPTIONS."""


@pytest.mark.parametrize("option", INDEPENDENT.split())
def test_every_option_of_any_file_system_is_taken_or_refused_with_a_reason(option: str) -> None:
    name = option.partition("=")[0]
    if name in REASONS or name == "remount":
        with pytest.raises(Refused, match="leave it out$" if name in REASONS else "reload"):
            wanted(parse(["/s", "/m", "-o", option]))
        return
    found = wanted(parse(["/s", "/m", "-o", option]))
    assert (found.arguments, found.creates) == ([], False)
    assert found.flags in ([], [option])


def test_a_value_may_have_an_equals_sign() -> None:
    found = wanted(parse(["/s", "/m", "-o", "notify.command=a --b=c,log_file=/var/log/a=b"]))
    assert found.arguments == ["--set", "notify.command=a --b=c", "--log-file", "/var/log/a=b"]


def test_a_sloppy_mount_takes_options_that_there_are_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["/s", "/m", "-sfv", "-o", "bogus,min_fre=5,nofail"]) == 0
    told = "mount.recfs: recfs mount --detach --same-group --root /s --existing -- /m\n"
    assert capsys.readouterr().err == told


def test_exit_codes_are_those_of_mount() -> None:
    codes = {code: exit_code(code) for code in (2, 3, 4, 5, 7, 70, 130)}
    assert codes == {2: 1, 3: 1, 4: 32, 5: 32, 7: 32, 70: 2, ExitCode.INTERRUPTED: 8}
