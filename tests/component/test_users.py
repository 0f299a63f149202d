"""Users who are told apart by uid: whose what is made is, who changes that, and what becomes of those who go."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from recfs.api import summaries
from recfs.cli.checks import Level
from recfs.cli.checks.users import user_checks
from recfs.core.access.owners import Owner, check_owner, takes_mode
from recfs.core.layout import Role
from recfs.errors import Busy, Exists, InvalidArgument, NotEmpty, NotFound, NotPermitted, ReadOnlyFile
from recfs.fs.attributes import Changes
from recfs.fs.caller import Caller
from recfs.services.access import users
from recfs.services.access.users import Users
from recfs.state.nodes import DirNode, LinkNode

from .build import Filesystem, filesystem
from .test_restore_catalogue import backed_up, restored

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

ROOT = Caller(0, 0, operator=True, by_place=True)
"""What the kernel asks for root."""
FIVE = Caller(10005, 10005, by_place=True)
SERVICE = Caller(990, 990, by_place=True)
DAY_NS = 86_400 * 10**9


async def ask(fs: Filesystem, method: str, **params: Any) -> Any:
    """Ask for a control method."""
    return await fs.answers()[method](params)


async def add(fs: Filesystem, user: str = "5", **params: Any) -> Any:
    """`recfs user add`."""
    return await ask(fs, "user_add", user=user, **({"uid": 10000 + int(user)} | params))


async def owned(fs: Filesystem, path: str) -> Owner:
    """Whose something is, and its mode."""
    node = await fs.node(path)
    return Owner(node.uid, node.gid, node.mode)


def on_disk(fs: Filesystem, path: str) -> Owner:
    """The same in the home tree."""
    info = os.lstat(fs.root / path)
    return Owner(info.st_uid, info.st_gid, info.st_mode & 0o7777)


async def test_a_user_has_directories_that_are_closed_to_others(fs: Filesystem) -> None:
    told = await add(fs)
    await fs.drain()
    for path in ("users/5", "users/5/recordings", "users/5/thumbnails", "temp/5"):
        assert await owned(fs, path) == on_disk(fs, path) == Owner(10005, 10005, 0o700), path
    assert told["directories"]["users"]["state"] == told["directories"]["temp"]["state"] == "ok"
    assert told["notes"] == []


async def test_the_kernel_hears_of_what_it_believed_absent_or_another_s(fs: Filesystem) -> None:
    await fs.mkdirs("users/5")
    ino = (await fs.node("users/5")).ino
    await add(fs)
    temp = (await fs.node("temp")).ino
    assert (temp, b"5", 0) in fs.kernel.entries
    assert ino in fs.kernel.inodes


async def test_directories_that_were_there_are_given_and_what_is_in_them_is_not(fs: Filesystem) -> None:
    await fs.write("users/5/recordings/142/a.mp4", b"data")
    told = await add(fs, mode=0o2770, gid=4000)
    assert await owned(fs, "users/5/recordings") == Owner(10005, 4000, 0o2770)
    inside = await owned(fs, "users/5/recordings/142")
    assert inside == Owner(os.geteuid(), os.getegid(), 0o755)
    assert "keeps its owners" in told["notes"][0]
    await fs.drain()
    assert on_disk(fs, "users/5") == Owner(10005, 4000, 0o2770)


async def test_what_root_makes_in_a_user_s_tree_is_the_user_s(fs: Filesystem) -> None:
    await add(fs)
    for folder in ("users/5/recordings/142", "users/5/recordings/142/deep", "temp/5/9"):
        await fs.vfs.mkdir(*await fs.folder(folder), 0o755, ROOT)
        assert await owned(fs, folder) == Owner(10005, 10005, 0o755)
    await fs.write("users/5/recordings/142/a.mp4", b"data", caller=ROOT)
    assert await owned(fs, "users/5/recordings/142/a.mp4") == Owner(10005, 10005, 0o644)
    made = await fs.vfs.symlink(*await fs.folder("users/5/recordings/142/link"), b"a.mp4", ROOT)
    assert isinstance(made, LinkNode)
    assert (made.uid, made.gid) == (10005, 10005)
    await fs.drain()
    assert on_disk(fs, "users/5/recordings/142/a.mp4") == Owner(10005, 10005, 0o644)
    assert on_disk(fs, "users/5/recordings/142/link")[:2] == (10005, 10005)


async def test_what_others_make_there_is_theirs(fs: Filesystem) -> None:
    """As on any file system: a service that the group lets in is told by its own uid, and by the setgid directory."""
    await add(fs, mode=0o2770, gid=4000)
    await fs.vfs.mkdir(*await fs.folder("users/5/recordings/142"), 0o755, SERVICE)
    await fs.write("users/5/recordings/142/a.mp4", b"data", caller=SERVICE)
    assert await owned(fs, "users/5/recordings/142") == Owner(990, 4000, 0o2755)
    assert await owned(fs, "users/5/recordings/142/a.mp4") == Owner(990, 4000, 0o644)


async def test_root_s_files_are_root_s_where_no_user_has_a_uid(fs: Filesystem) -> None:
    await add(fs)
    for folder in ("users/6", "users/6/recordings", "users/6/recordings/1", "shared/a"):
        await fs.vfs.mkdir(*await fs.folder(folder), 0o755, ROOT)
        assert await owned(fs, folder) == Owner(0, 0, 0o755)


@pytest.mark.parametrize("caller", [ROOT, SERVICE], ids=["root", "service"])
async def test_a_user_s_directories_are_the_user_s_whoever_makes_them(fs: Filesystem, caller: Caller) -> None:
    await add(fs, mode=0o750)
    for path in ("users/5/thumbnails", "users/5/recordings", "users/5", "temp/5"):
        await fs.rmdir(path)
    for path in ("users/5", "temp/5"):
        made = await fs.vfs.mkdir(*await fs.folder(path), 0o777, caller)
        assert isinstance(made, DirNode)
        assert await owned(fs, path) == Owner(10005, 10005, 0o750)
    assert await owned(fs, "users/5/thumbnails") == Owner(10005, 10005, 0o750)
    assert await ask(fs, "user_list") == [await told_of(fs, "5")]


async def told_of(fs: Filesystem, user: str) -> Any:
    """One entry of `recfs user list`, where both directories are as they should be."""
    (told,) = [each for each in await ask(fs, "user_list") if each["user"] == user]
    assert {place["state"] for place in told["directories"].values()} == {"ok"}
    return told


async def test_recordings_that_root_makes_have_the_mode_of_the_user(fs: Filesystem) -> None:
    await add(fs)
    await fs.rmdir("users/5/recordings")
    await fs.vfs.mkdir(*await fs.folder("users/5/recordings"), 0o755, ROOT)
    assert await owned(fs, "users/5/recordings") == Owner(10005, 10005, 0o700)
    await fs.rmdir("users/5/recordings")
    await fs.vfs.mkdir(*await fs.folder("users/5/recordings"), 0o755, FIVE)
    assert await owned(fs, "users/5/recordings") == Owner(10005, 10005, 0o755)


@pytest.mark.parametrize("path", ["users/5", "temp/5"])
@pytest.mark.parametrize("change", [{"mode": 0o777}, {"gid": 10005}, {"uid": 10005}], ids=str)
async def test_a_user_cannot_open_their_directory_to_others(fs: Filesystem, path: str, change: dict[str, int]) -> None:
    await add(fs)
    node = await fs.node(path)
    with pytest.raises(NotPermitted, match="recfs user add"):
        await fs.vfs.setattr(node.ino, Changes(**change), FIVE)
    assert await owned(fs, path) == Owner(10005, 10005, 0o700)
    await fs.vfs.setattr(node.ino, Changes(mtime_ns=7), FIVE)  # touch(1) is nobody's concern
    await fs.vfs.setattr(node.ino, Changes(mode=0o750), ROOT)
    told = await ask(fs, "user_list")
    assert told[0]["directories"][path.partition("/")[0]]["state"] == "differs"
    await add(fs)
    assert await owned(fs, path) == Owner(10005, 10005, 0o700)


async def test_below_their_directory_modes_are_the_user_s(fs: Filesystem) -> None:
    await add(fs)
    node = await fs.node("users/5/recordings")
    await fs.vfs.setattr(node.ino, Changes(mode=0o755), FIVE)
    assert (await owned(fs, "users/5/recordings")).mode == 0o755


async def test_a_directory_of_a_user_without_a_uid_is_its_owner_s(fs: Filesystem) -> None:
    """As before there were uids: chmod of one's own directory works."""
    await fs.mkdirs("users/5")
    node = await fs.node("users/5")
    await fs.vfs.setattr(node.ino, Changes(uid=10005), ROOT)
    await fs.vfs.setattr(node.ino, Changes(mode=0o777), FIVE)
    assert await owned(fs, "users/5") == Owner(10005, os.getegid(), 0o777)


# --- who may be what -------------------------------------------------------------------------------------------------


async def test_a_uid_is_one_user_s(fs: Filesystem) -> None:
    await add(fs)
    with pytest.raises(Exists, match="uid 10005 is user 5's"):
        await add(fs, "6", uid=10005)
    assert not await fs.exists("users/6")
    await ask(fs, "user_remove", user="5")
    await add(fs, "6", uid=10005)


async def test_two_at_once_do_not_get_one_uid(fs: Filesystem) -> None:
    came = []

    async def one(user: str) -> None:
        try:
            await add(fs, user, uid=4242)
        except Exists:
            came.append(user)

    async with trio.open_nursery() as nursery:
        for user in ("5", "6", "7"):
            nursery.start_soon(one, user)
    assert len(came) == 2
    assert len(await ask(fs, "user_list")) == 1


async def test_a_group_that_is_shared_is_told_where_modes_let_it_in(fs: Filesystem) -> None:
    await add(fs, "5", gid=100)
    assert (await add(fs, "6", gid=100))["notes"] == []
    told = await add(fs, "7", gid=100, mode=0o2770)
    assert "group 100 is also that of user 5, 6" in told["notes"][0]


@pytest.mark.parametrize(
    ("params", "why"),
    [
        ({"uid": 0}, "operator"), ({"uid": 2**32 - 1}, "lies between"), ({"uid": -1}, "lies between"),
        ({"gid": 2**32 - 1}, "lies between"), ({"mode": 0o755}, "lets every user in"), ({"mode": 0o701}, "every user"),
        ({"mode": 0o500}, "all of their own"), ({"mode": 0o4700}, "permission bits"), ({"mode": 1 << 20}, "bits"),
        ({"uid": "5; rm"}, "no whole number"), ({"uid": True}, "no whole number"), ({"uid": None}, "--uid"),
        ({"user": "../x"}, "an id is"), ({"user": ""}, "an id is"),
    ],
    ids=str,
)  # fmt: skip
async def test_what_would_keep_nobody_apart_is_refused(fs: Filesystem, params: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidArgument, match=why):
        await ask(fs, "user_add", **({"user": "5", "uid": 10005} | params))
    assert not await fs.exists("users/5")
    assert await ask(fs, "user_list") == []


@pytest.mark.parametrize("mode", [0o700, 0o750, 0o770, 0o2750, 0o2770, 0o1770, 0o3770])
def test_modes_that_keep_others_out(mode: int) -> None:
    check_owner(Owner(10005, 10005, mode), frozenset({0}))


def test_which_levels_have_the_mode_of_the_user() -> None:
    assert {role for role in Role if takes_mode(role)} == {
        Role.USER, Role.TEMP_USER, Role.USER_THUMBNAILS, Role.USER_RECORDINGS,
    }  # fmt: skip


async def test_the_owner_of_a_directory_is_taken_over(fs: Filesystem) -> None:
    """A store whose users were told apart by chown(1): no uid has to be given again."""
    await fs.mkdirs("users/5")
    await fs.vfs.setattr((await fs.node("users/5")).ino, Changes(uid=10005, gid=77, mode=0o750), ROOT)
    told = await ask(fs, "user_add", user="5")
    assert (told["uid"], told["gid"], told["mode"]) == (10005, 77, "0700")


async def test_what_is_not_given_stays(fs: Filesystem) -> None:
    await add(fs, gid=77, mode=0o2770)
    for change, expected in (
        ({}, (10005, 77, "2770")), ({"mode": 0o750}, (10005, 77, "0750")), ({"gid": 78}, (10005, 78, "0750")),
        ({"uid": 10006}, (10006, 10006, "0750")),
    ):  # fmt: skip
        told = await ask(fs, "user_add", user="5", **change)
        assert (told["uid"], told["gid"], told["mode"]) == expected
        assert await owned(fs, "users/5") == Owner(expected[0], expected[1], int(expected[2], 8))


async def test_a_daemon_that_cannot_give_files_away_says_so(fs: Filesystem) -> None:
    unable = Users(fs.vfs, fs.kernel, fs.parts.reports, frozenset({0}), fs.root, gives_owners=False)
    with pytest.raises(NotPermitted, match="root"):
        await unable.add("5", 10005, None, None)


# --- it stays ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [Filesystem.stop, Filesystem.crash], ids=["stop", "crash"])
async def test_the_mapping_survives(
    nursery: trio.Nursery, place: Path, end: Callable[[Filesystem], Awaitable[None]]
) -> None:
    fs = Filesystem(nursery, place / "root")
    await fs.start()
    await add(fs, mode=0o2750)
    before = await ask(fs, "user_list")
    await end(fs)
    await fs.reopen()
    assert await ask(fs, "user_list") == before
    await fs.drain()
    assert on_disk(fs, "temp/5") == Owner(10005, 10005, 0o2750)
    await fs.vfs.mkdir(*await fs.folder("users/5/recordings/142"), 0o755, ROOT)
    assert (await owned(fs, "users/5/recordings/142"))[:2] == (10005, 10005)
    await fs.stop()


@pytest.mark.slow
async def test_a_death_at_any_step_leaves_what_the_same_command_ends(nursery: trio.Nursery, place: Path) -> None:
    """Before each effect on disk of add and of remove: the user is there or not, and the command is done again."""
    step, ended = 0, False
    while not ended:
        fs = Filesystem(nursery, place / f"root{step}")
        await fs.start()
        await fs.write("users/5/recordings/142/a.mp4", b"data")
        await fs.drain()

        async def both(fs: Filesystem) -> None:
            await add(fs)
            await fs.drain()
            await ask(fs, "user_remove", user="5", files="delete")
            await fs.drain()

        ended = await fs.until_stopped(both, step)
        if not ended:
            await fs.crash()
            await fs.reopen()
            for each in await ask(fs, "user_list"):
                assert (each["uid"], each["mode"]) == (10005, "0700")
            await add(fs)
            await told_of(fs, "5")
            await ask(fs, "user_remove", user="5", files="delete")
        assert not await fs.exists("users/5")
        assert not await fs.exists("temp/5")
        assert await ask(fs, "user_list") == []
        await fs.assert_consistent()
        await fs.stop()
        step += 1
    assert step > 10


# --- going -----------------------------------------------------------------------------------------------------------


async def test_a_user_without_files_goes(fs: Filesystem) -> None:
    await add(fs)
    told = await ask(fs, "user_remove", user="5")
    assert told == {
        "user": "5", "uid": 10005, "removed_files": 0, "removed_bytes": 0, "kept_files": 0, "left": [],
    }  # fmt: skip
    assert await fs.names("users") == await fs.names("temp") == []
    assert await ask(fs, "user_list") == []


async def test_a_user_with_files_is_refused_and_nothing_changes(fs: Filesystem) -> None:
    await add(fs)
    await fs.write("temp/5/9/a", b"data", caller=FIVE)
    with pytest.raises(NotEmpty, match=r"1 file of 4 bytes: --delete removes them, --keep-files leaves them"):
        await ask(fs, "user_remove", user="5")
    assert await fs.read("temp/5/9/a") == b"data"
    assert await owned(fs, "users/5") == Owner(10005, 10005, 0o700)
    await told_of(fs, "5")


async def test_a_file_that_comes_meanwhile_is_not_removed_and_the_user_is_let_in_again(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process of the user's that is inside goes on, whatever the mode of the directory above is by then."""
    await add(fs, mode=0o2770)
    await fs.vfs.mkdir(*await fs.folder("users/5/recordings/142"), 0o755, FIVE)
    remove = fs.vfs.trees.remove

    async def late(folder: DirNode, **options: Any) -> Any:
        if folder.path == "users/5":
            await fs.write("users/5/recordings/142/late", b"data", caller=FIVE)
        return await remove(folder, **options)

    monkeypatch.setattr(fs.vfs.trees, "remove", late)
    with pytest.raises(Busy):
        await ask(fs, "user_remove", user="5")
    assert await fs.read("users/5/recordings/142/late") == b"data"
    assert await owned(fs, "users/5") == Owner(10005, 10005, 0o2770)
    await told_of(fs, "5")


async def test_a_store_that_users_can_enter_is_told(fs: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await add(fs))["notes"] == []
    monkeypatch.setattr(users, "is_exposed", lambda root: root == fs.root)
    (note,) = (await add(fs))["notes"]
    assert "chmod 700" in note


async def test_delete_removes_all_and_gives_the_quota_back(fs: Filesystem) -> None:
    await add(fs)
    await ask(fs, "quota_set", user="5", max_bytes="1MiB")
    await fs.write("users/5/recordings/142/source.mp4", b"data", caller=FIVE)
    await fs.write("temp/5/9/a", b"data", caller=FIVE)
    told = await ask(fs, "user_remove", user="5", files="delete")
    assert (told["removed_files"], told["removed_bytes"], told["left"]) == (2, 8, [])
    assert await fs.names("users") == await fs.names("temp") == []
    (quota,) = await ask(fs, "quota_show", user="5")
    assert (quota["used_bytes"], quota["used_files"], quota["month_uploads"]) == (0, 0, 1)
    assert quota["own_limits"]["max_bytes"] == 1 << 20
    await fs.drain()
    assert not (fs.root / "users/5").exists()


async def test_what_was_deleted_lies_in_the_trash(place: Path) -> None:
    async with filesystem(place, trash={"retention": 3600.0}) as fs:
        await add(fs)
        await fs.write("users/5/recordings/142/a.mp4", b"data", caller=FIVE)
        await ask(fs, "user_remove", user="5", files="delete")
        await fs.drain()
        found = await ask(fs, "trash_list")
        paths = {each["path"] for each in found["entries"]}
        assert "users/5/recordings/142/a.mp4" in paths
        await ask(fs, "trash_restore", path="users/5/recordings/142/a.mp4")
        assert await fs.read("users/5/recordings/142/a.mp4") == b"data"
        assert (await owned(fs, "users/5")).mode == 0o700
        await ask(fs, "user_remove", user="5", files="delete")


async def test_keep_leaves_everything_to_root(fs: Filesystem) -> None:
    await add(fs)
    await fs.write("users/5/recordings/142/a.mp4", b"data", caller=FIVE)
    told = await ask(fs, "user_remove", user="5", files="keep")
    assert (told["kept_files"], told["left"]) == (1, ["users/5", "temp/5"])
    assert await fs.read("users/5/recordings/142/a.mp4") == b"data"
    assert await owned(fs, "users/5") == await owned(fs, "temp/5") == Owner(os.geteuid(), os.getegid(), 0o700)
    assert (await owned(fs, "users/5/recordings/142/a.mp4")).uid == 10005
    assert fs.account() == (4, 1)
    assert await ask(fs, "user_list") == []
    (told,) = await ask(fs, "user_list", everyone=True)
    assert (told["uid"], told["directories"]["users"]["state"]) == (None, "closed")


async def test_a_recording_that_is_to_stay_is_refused_before_anything_goes(fs: Filesystem) -> None:
    await add(fs)
    await fs.write("users/5/recordings/142/a.mp4", b"data", caller=FIVE)
    await fs.write("temp/5/9/a", b"data", caller=FIVE)
    await ask(fs, "recording_keep", path="users/5/recordings/142", on=True)
    with pytest.raises(Busy, match="142 is kept"):
        await ask(fs, "user_remove", user="5", files="delete")
    assert await fs.read("temp/5/9/a") == b"data"
    await told_of(fs, "5")
    await ask(fs, "recording_keep", path="users/5/recordings/142", on=False)
    await ask(fs, "user_remove", user="5", files="delete")


async def test_nobody_is_removed_who_is_not_there(fs: Filesystem) -> None:
    with pytest.raises(NotFound, match="no uid and no directories"):
        await ask(fs, "user_remove", user="5")
    with pytest.raises(InvalidArgument, match="one of refuse, delete, keep"):
        await ask(fs, "user_remove", user="5", files="shred")


async def test_a_user_whose_directory_got_another_id(fs: Filesystem) -> None:
    """A mapping is the id's: the directory keeps its owner, and both are told."""
    await add(fs)
    await fs.rename("users/5", "users/7")
    assert await owned(fs, "users/7") == Owner(10005, 10005, 0o700)
    told = {each["user"]: each["directories"]["users"]["state"] for each in await ask(fs, "user_list", everyone=True)}
    assert told == {"5": "missing", "7": "closed"}
    await fs.vfs.setattr((await fs.node("users/7")).ino, Changes(mode=0o750), FIVE)


@pytest.mark.expect_log("the catalogue is older than the home tree")
@pytest.mark.expect_log("were not in the catalogue, and are now: temp/6, users/6")
async def test_a_restored_catalogue_has_the_uids_of_its_time_and_says_what_is_otherwise(fs: Filesystem) -> None:
    """A user who was added since has directories that are closed all the same; only the uid has to be given again."""
    await add(fs, "5")
    await fs.drain()
    await backed_up(fs)
    await add(fs, "6", mode=0o2770)
    await fs.drain()
    await restored(fs)
    await fs.drain()
    told = {each["user"]: each for each in await ask(fs, "user_list", everyone=True)}
    assert (told["5"]["uid"], told["5"]["directories"]["users"]["state"]) == (10005, "ok")
    assert (told["6"]["uid"], told["6"]["directories"]["users"]["uid"]) == (None, 10006)
    assert await owned(fs, "users/6") == Owner(10006, 10006, 0o2770)
    assert (await ask(fs, "user_add", user="6", mode=0o2770))["uid"] == 10006
    await told_of(fs, "6")


async def test_a_user_is_no_operator_by_a_setting_that_came_later(place: Path) -> None:
    """Neither in what they may do, nor in silence; any other operator is one."""
    async with filesystem(place / "root", operator=990) as fs:
        await add(fs)
        with pytest.raises(InvalidArgument, match="uid 990 is an operator's"):
            await add(fs, "6", uid=990)
        assert fs.parts.operators == {0, os.geteuid(), 990}
        assert fs.parts.mistaken_operator is None
        assert not any("operator" in each for each in (await ask(fs, "status"))["problems"])
        fs.config = fs.config.model_copy(update={"operator": 10005})
        await fs.reopen()
        assert fs.parts.operators == {0, os.geteuid()}
        told = "operator = 10005: that is the uid of user 5, who would be kept from nothing; set another"
        assert str(fs.parts.mistaken_operator).startswith(told)
        assert any(each.startswith(told) for each in (await ask(fs, "status"))["problems"])
        alone = await fs.parts.reports.ask(summaries.status, fs.config)
        assert any(each.startswith(told) for each in alone["problems"])
        with pytest.raises(ReadOnlyFile):
            await fs.vfs.mkdir((await fs.node("shared")).ino, b"mine", 0o755, FIVE)
        (found,) = user_checks(fs.config)
        assert (found.name, found.level, "user add 5" in found.remedy) == ("operator", Level.FAIL, True)
        await add(fs, uid=10006)  # the remedy
        await fs.reopen()
        assert fs.parts.mistaken_operator is None
        assert 10005 in fs.parts.operators
        assert [each.level for each in user_checks(fs.config)] == [Level.OK]
    assert user_checks(fs.config.model_copy(update={"operator": None})) == []


async def test_a_directory_without_a_uid_is_closed_or_shared_by_its_mode(fs: Filesystem) -> None:
    for user, mode in (("6", 0o700), ("7", 0o755), ("8", 0o770)):
        await fs.mkdirs(f"users/{user}")
        await fs.vfs.setattr((await fs.node(f"users/{user}")).ino, Changes(mode=mode), ROOT)
    found = await ask(fs, "user_list", everyone=True)
    assert {each["user"]: each["directories"]["users"]["state"] for each in found} == {
        "6": "closed", "7": "shared", "8": "shared",
    }  # fmt: skip


async def test_who_has_nothing_and_no_limits_is_not_listed_among_all(fs: Filesystem) -> None:
    await add(fs, "5")
    await fs.write("users/6/recordings/1/file", b"data")
    await ask(fs, "quota_set", user="7", max_files=7)
    await fs.drain()
    assert [each["user"] for each in await ask(fs, "quota_show")] == ["6", "7"]
    assert [each["user"] for each in await ask(fs, "quota_show", user="5")] == ["5"]
    await ask(fs, "quota_set", user="7", max_files="default")
    await fs.unlink("users/6/recordings/1/file")
    await fs.drain()
    assert await ask(fs, "quota_show") == []
