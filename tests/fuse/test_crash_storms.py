"""kill -9 in the middle of many operations: bursts of creates, rm -rf, renames, and a mix of all."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from .clients import pattern, sha256, sha256_of, state, xattr
from .crashes import assert_recovered, client, crash, kill_during
from .harness import Mount

pytestmark = pytest.mark.modes("auto", "off")


@pytest.mark.parametrize("after", [1, 60, 199])
def test_a_burst_of_creates(store: Mount, own_rec: Path, after: int) -> None:
    script = (
        "for n in range(200):\n"
        "    with open(f'{sys.argv[1]}/file{n}', 'wb') as stream:\n"
        "        stream.write(hashlib.shake_128(n.to_bytes(8, 'big')).digest(2000))\n"
        "    print(n, flush=True)\n"
    )
    closed = kill_during(store, client(script, own_rec), after)
    store.drain()
    for n in map(int, closed):
        file = own_rec / f"file{n}"
        assert file.exists(), f"file {n} of {len(closed)} closed files is gone"
        assert file.read_bytes() == pattern(2000, seed=n)
        # The kernel tells of the last close after close(2) returned: for the newest files that may have come too late.
        late = n > int(closed[-1]) - 3
        assert state(file) == "committed" or (late and state(file) == "incomplete"), f"file {n} was closed"
    others = {p.name for p in own_rec.iterdir()} - {f"file{n}" for n in closed}
    assert len(others) <= 1, f"files that were never acknowledged: {others}"
    for name in others:
        assert pattern(2000, seed=int(name[4:])).startswith((own_rec / name).read_bytes())
    assert_recovered(store)


def test_while_files_are_written_and_fsynced(store: Mount, own_rec: Path) -> None:
    script = (
        "fds = [os.open(f'{sys.argv[1]}/file{n}', os.O_WRONLY | os.O_CREAT, 0o644) for n in range(4)]\n"
        "data = [hashlib.shake_128(n.to_bytes(8, 'big')).digest(20_000_000) for n in range(4)]\n"
        "for block in range(400):\n"
        "    for n, fd in enumerate(fds):\n"
        "        os.write(fd, data[n][block * 50_000:(block + 1) * 50_000])\n"
        "        if (block + n) % 5 == 0:\n"
        "            os.fsync(fd)\n"
        "            print(n, (block + 1) * 50_000, flush=True)\n"
    )
    synced = dict.fromkeys(range(4), 0)
    for line in kill_during(store, client(script, own_rec), 30):
        number, size = map(int, line.split())
        synced[number] = size
    for n, size in synced.items():
        content = (own_rec / f"file{n}").read_bytes()
        assert len(content) >= size, f"{len(content)} of {size} fsynced bytes left in file {n}"
        assert sha256(content) == sha256(pattern(20_000_000, seed=n)[: len(content)]), "bytes that were never written"
        assert state(own_rec / f"file{n}") == "incomplete"
    assert_recovered(store)


@pytest.mark.modes("auto")
@pytest.mark.parametrize("after", [5, 150, 299])
def test_during_rm_of_a_tree(store: Mount, own_rec: Path, after: int) -> None:
    for n in range(300):
        (own_rec / f"dir{n % 10}").mkdir(exist_ok=True)
        (own_rec / f"dir{n % 10}" / f"file{n}").write_bytes(pattern(3000, seed=n))
    store.drain()
    script = (
        "import pathlib\n"
        "for path in sorted(pathlib.Path(sys.argv[1]).rglob('file*')):\n"
        "    path.unlink(); print(path.name, flush=True)\n"
    )
    kill_during(store, client(script, own_rec), after)
    store.drain()
    for path in own_rec.rglob("file*"):  # deletions of the last moment may be undone, but only whole
        assert path.read_bytes() == pattern(3000, seed=int(path.name[4:])), path
        assert state(path) == "committed"
        assert store.home(path).stat().st_size == 3000
    at_home = {p.name for p in store.home(own_rec).rglob("file*")}
    assert at_home == {p.name for p in own_rec.rglob("file*")}, "the home tree differs"
    assert_recovered(store)
    subprocess.run(["rm", "-rf", own_rec], check=True, timeout=30)
    store.drain()
    assert not store.home(own_rec).exists()


@pytest.mark.modes("auto")
@pytest.mark.parametrize("after", [1, 40, 333])
def test_during_a_storm_of_renames(store: Mount, own_rec: Path, after: int) -> None:
    other = store.recording(2, 7)
    (own_rec / "file").write_bytes(pattern(10_000))
    (own_rec / "dir").mkdir()
    (own_rec / "dir" / "inner").write_bytes(pattern(10_000, seed=1))
    (own_rec / "writing").touch()
    store.drain()
    script = (
        "here, there = sys.argv[1:]\n"
        "fd = os.open(f'{here}/writing', os.O_WRONLY)\n"
        "for n in range(5000):\n"
        "    os.rename(f'{here}/file', f'{there}/file{n}')\n"
        "    os.write(fd, b'x')\n"
        "    os.rename(f'{here}/writing', f'{there}/writing')\n"
        "    os.rename(f'{here}/dir', f'{there}/dir{n}')\n"
        "    print(n, flush=True)\n"
        "    here, there = there, here\n"
        "    os.rename(f'{here}/file{n}', f'{here}/file')\n"
        "    os.rename(f'{here}/dir{n}', f'{here}/dir')\n"
    )
    kill_during(store, client(script, own_rec, other), after)
    store.drain()
    files = [p for top in (own_rec, other) for p in top.glob("file*")]
    inner = [p for top in (own_rec, other) for p in top.glob("dir*/inner")]
    written = [p for top in (own_rec, other) for p in top.glob("writing")]
    assert (len(files), len(inner), len(written)) == (1, 1, 1), (files, inner, written)
    assert files[0].read_bytes() == pattern(10_000)
    assert inner[0].read_bytes() == pattern(10_000, seed=1)
    for path in (files[0], inner[0]):
        assert state(path) == "committed"
        assert store.home(path).read_bytes() == path.read_bytes(), "the home tree has it elsewhere"
    assert_recovered(store)
    crash(store)
    assert files[0].read_bytes() == pattern(10_000)


VERSIONS = """
rec, seed = sys.argv[1:]
import random
dice = random.Random(int(seed))
def content(name, version):
    head = f'{name} {version} '.encode()
    return head + hashlib.shake_128(head).digest(dice_size(name, version))
def dice_size(name, version):
    return int(hashlib.sha256(f'{name}{version}'.encode()).hexdigest()[:5], 16) % 40_000
for version in range(10_000):
    name = f'f{dice.randrange(12)}'
    path = f'{rec}/{name}'
    kind = dice.random()
    if kind < 0.5:
        with open(path, 'wb') as stream:
            stream.write(content(name, version))
    elif kind < 0.7:
        with open(path + '.tmp', 'wb') as stream:
            stream.write(content(name, version))
        os.rename(path + '.tmp', path)
    elif kind < 0.8 and os.path.exists(path):
        os.unlink(path)
    elif kind < 0.9:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.write(fd, content(name, version))
        os.fsync(fd)
        os.close(fd)
    elif not os.path.exists(f'{rec}/d{version}'):
        os.mkdir(f'{rec}/d{version}')
    print(version, flush=True)
"""


@pytest.mark.parametrize("points", [[3, 50, 120], [200, 7, 31], [90, 90, 90]], ids=lambda p: "-".join(map(str, p)))
def test_a_mixed_load_killed_again_and_again(store: Mount, own_rec: Path, points: Sequence[int]) -> None:
    for seed, after in enumerate(points):
        kill_during(store, client(VERSIONS, own_rec, str(seed)), after)
        store.drain()
        for path in own_rec.iterdir():
            if path.is_dir():
                continue
            content = path.read_bytes()
            if state(path) == "incomplete":
                continue
            assert state(path) == "committed"
            assert sha256(content) == xattr(path, "sha256"), path
            assert sha256_of(store.home(path)) == sha256(content), "the home tree holds other bytes"
            name, version, _ = content.split(b" ", 2)
            head = name + b" " + version + b" "
            size = int(sha256(name + version)[:5], 16) % 40_000
            assert name.decode() == path.name.removesuffix(".tmp"), "another file's bytes"
            assert len(content) == len(head) + size, "a committed file is one whole version"
        assert_recovered(store)
