"""`recfs config check` and `show` with the tables of the S3 tier, and with every setting there is."""

import json
import re
from pathlib import Path

from recfs.config import SECTIONS
from tests.system.fake_daemon import run


def test_config_check_names_the_bucket(tmp_path: Path) -> None:
    conf = tmp_path / "recfs.conf"
    conf.write_text('root = "/srv/recfs"\n[s3]\nbucket = "media"\nprefix = "studio"\n')
    assert "store at /srv/recfs, S3 tier in s3://media/studio/" in run("config", "check", conf).stdout
    assert json.loads(run("config", "check", conf, "--json").stdout)["s3"] == "s3://media/studio/"
    conf.write_text('root = "/srv/recfs"\n[[route]]\npattern = "users/**"\nto = "s3"\n')
    refused = run("config", "check", conf)
    assert (refused.exit_code, "add [s3]" in refused.stderr) == (3, True)


def test_config_show_of_the_s3_tier(tmp_path: Path) -> None:
    conf = tmp_path / "recfs.conf"
    conf.write_text(
        'root = "/srv/recfs"\n[s3]\nbucket = "media"\ntags = { deadline = "x" }\n'
        '[[route]]\npattern = "temp/**"\nto = "local"\n'
        '[[route]]\npattern = "users/**"\nto = "s3"\nmin_size = "1 MiB"\nkeep_local = "7d"\n'
    )
    shown = json.loads(run("config", "show", "--config", conf, "--json").stdout)
    assert (shown["s3"]["bucket"], shown["s3"]["tags"], shown["s3"]["read_timeout"]) == ("media", {"deadline": "x"}, 60)
    assert [rule["to"] for rule in shown["route"]] == ["local", "s3"]
    assert set(shown["route"][0]) == set(SECTIONS["route"].model_fields)
    plain = run("config", "show", "--config", conf).stdout
    for line, origin in (
        ("root +/srv/recfs", f"{conf}, line 1"),
        ('s3.prefix +""', "default"),
        ("s3.tags.deadline +x", f"{conf}, line 4"),
        (r"route\[1\].pattern +temp/\*\*", f"{conf}, line 6"),
        (r"route\[2\].min_size +1 MiB", f"{conf}, line 11"),
        (r"route\[2\].max_size +-", "default"),
        (r"route\[2\].keep_local +7d", f"{conf}, line 12"),
        ("cache.max_size +20 GiB", "default"),
        ("upload.retry_max +5m", "default"),
    ):
        assert re.search(f"^{line} +{origin}$", plain, re.MULTILINE), line


def test_config_show_writes_sizes_and_durations_with_their_units(tmp_path: Path) -> None:
    example = (Path(__file__).parents[2] / "recfs.conf.example").read_text("utf-8")
    conf = tmp_path / "recfs.conf"
    conf.write_text(re.sub(r"^#(\w+ *=.*|\[+\w+\]+)$", r"\1", example, flags=re.MULTILINE))
    plain = run("config", "show", "--config", conf).stdout
    unit = re.compile(r'(\w+) = "[0-9]+ ?([A-Za-z]+)"$', re.MULTILINE)
    written = [key for key, _unit in unit.findall(conf.read_text("utf-8"))]
    assert len(written) > 20
    shown = dict(re.findall(r"^\S*?(\w+) +(.+?)  +\S+, line \d+$", plain, re.MULTILINE))
    assert [key for key in written if not re.fullmatch(r"[0-9.]+ ?[A-Za-z]+", shown[key])] == []


def test_check_of_a_file_names_the_variables_that_count(tmp_path: Path) -> None:
    conf = tmp_path / "recfs.conf"
    conf.write_text('root = "/srv/a"')
    result = run("config", "check", conf, env={"RECFS_MIN_FREE": "7", "RECFS_ROOT": "/srv/b"})
    told = f"{conf}: ok, store at /srv/b; $RECFS_MIN_FREE, $RECFS_ROOT of the environment counted as well"
    assert (result.exit_code, result.stdout.replace("\n", " ").strip()) == (0, told)
    told_json = json.loads(run("--json", "config", "check", conf, env={"RECFS_MIN_FREE": "7"}).stdout)
    assert told_json["environment"] == ["RECFS_MIN_FREE"]
    wrong = run("config", "check", conf, env={"RECFS_MIN_FREE": "much"})
    assert (wrong.exit_code, "$RECFS_MIN_FREE: min_free" in wrong.stderr) == (3, True)
    assert run("config", "check", conf).stdout.strip() == f"{conf}: ok, store at /srv/a"


def test_one_long_value_does_not_make_all_lines_long(tmp_path: Path) -> None:
    """In a pager they would all be broken, for a list of forty names."""
    file = tmp_path / "recfs.conf"
    file.write_text('root = "/srv/recfs"\n')
    lines = run("config", "show", "--config", file).stdout.splitlines()
    (methods,) = [line for line in lines if line.startswith("gateway.methods")]
    assert methods.endswith("'cache_release']  default")
    assert sum(len(line) >= len(str(file)) + 100 for line in lines) < 5
    (root,) = [line for line in lines if line.startswith("root ")]
    assert root.split() == ["root", "/srv/recfs", f"{file},", "line", "1"]
