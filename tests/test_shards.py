from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sdcorr.errors import BadOutput, BadRun
from sdcorr.lines import to_lines
from sdcorr.shards import (
    Shard,
    all_ended,
    join_shards,
    locked,
    processes_in,
    refuse_open_shards,
    shards_in,
    written,
)

LENGTHS = {"a": 2, "b": 1, "c": 3}


def lines_of(pair: str, value: float = 0.0) -> bytes:
    return to_lines(
        {"pair": pair, "keypoint": str(index), "error": value} for index in range(LENGTHS[pair])
    )


def skip(pair: str) -> bytes:
    return to_lines([{"pair": pair, "skipped": "no photo"}])


def put(path: Path, *parts: bytes) -> Path:
    path.write_bytes(b"".join(parts))
    return path


def test_a_shard_holds_what_was_written_and_says_who_wrote_it(tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    with Shard(folder, "x-0000", {"rank": 0}) as shard:
        shard.write(lines_of("a"))
        shard.write(lines_of("b"))
        assert processes_in(folder) == [{"name": "x-0000", "rank": 0, "ended": None}]
        assert not all_ended(folder, ["x-0000"])
    shard.note({"ended": "now", "pairs": 2})
    assert processes_in(folder) == [{"name": "x-0000", "rank": 0, "ended": "now", "pairs": 2}]
    assert all_ended(folder, ["x-0000"])
    assert not all_ended(folder, ["x-0000", "x-0001"])
    (path,) = shards_in(folder)
    assert written([path], LENGTHS) == {"a", "b"}


def test_a_shard_cut_at_any_byte_holds_its_whole_pairs_and_no_other(tmp_path: Path) -> None:
    whole = lines_of("b") + lines_of("a") + lines_of("c")
    ends = {"b": len(lines_of("b")), "a": len(lines_of("b") + lines_of("a")), "c": len(whole)}
    for cut in range(len(whole) + 1):
        path = put(tmp_path / "x.jsonl", whole[:cut])
        assert written([path], LENGTHS) == {name for name, end in ends.items() if end <= cut}


def test_damaged_lines_cost_their_own_pair_alone(tmp_path: Path) -> None:
    damaged = lines_of("a").replace(b"{", b"\x00", 1)
    for rubbish in (damaged, b"[]\n", b"3\n", b'{"pair":7}\n', b"\xff\xfe\n", b"\n"):
        path = put(tmp_path / "x.jsonl", lines_of("b"), rubbish, lines_of("c"))
        assert written([path], LENGTHS) == {"b", "c"}


def test_joining_takes_each_pair_once_in_the_order_of_the_list(tmp_path: Path) -> None:
    first = put(tmp_path / "1.jsonl", lines_of("c"), lines_of("a")[:-5])  # killed here
    second = put(tmp_path / "2.jsonl", lines_of("b"), lines_of("a"), lines_of("c"))
    join_shards([first, second], LENGTHS, tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_bytes() == lines_of("a") + lines_of("b") + lines_of("c")


def test_a_pair_that_was_skipped_and_later_predicted_is_predicted(tmp_path: Path) -> None:
    first = put(tmp_path / "1.jsonl", skip("b"), lines_of("a"), skip("c"))
    second = put(tmp_path / "2.jsonl", lines_of("b"))
    assert written([first], LENGTHS) == {"a"}
    for order in ([first, second], [second, first]):
        join_shards(order, LENGTHS, tmp_path / "out.jsonl")
        assert (tmp_path / "out.jsonl").read_bytes() == lines_of("a") + lines_of("b") + skip("c")


def test_the_joined_file_may_be_one_of_the_parts(tmp_path: Path) -> None:
    out = put(tmp_path / "out.jsonl", lines_of("a"), skip("b"), lines_of("c"))
    later = put(tmp_path / "1.jsonl", lines_of("b"))
    join_shards([out, later], LENGTHS, out)
    assert out.read_bytes() == lines_of("a") + lines_of("b") + lines_of("c")


def test_a_missing_pair_is_named_and_the_old_file_stays(tmp_path: Path) -> None:
    out = put(tmp_path / "out.jsonl", b"old")
    shard = put(tmp_path / "1.jsonl", lines_of("a"))
    with pytest.raises(BadRun, match="lacks 2 of 3 results, first b"):
        join_shards([shard], LENGTHS, out)
    assert out.read_bytes() == b"old"


def test_an_open_shard_is_refused_and_a_closed_one_is_not(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from sdcorr.shards import Shard\n"
        "with Shard(pathlib.Path(sys.argv[1]), 'x', {}):\n"
        "    print('open', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"open\n"
        with pytest.raises(BadRun, match="another process is writing to"):
            refuse_open_shards(tmp_path)
        process.kill()  # a lock dies with its process
    refuse_open_shards(tmp_path)


def test_a_lock_held_elsewhere_is_refused(tmp_path: Path) -> None:
    with (
        locked(tmp_path / "lock"),
        pytest.raises(BadRun, match="wait for it to end, or choose another --out"),
        locked(tmp_path / "lock"),
    ):
        pass
    with locked(tmp_path / "lock"):
        pass


def test_a_full_disk_keeps_what_was_written(tmp_path: Path) -> None:
    code = (
        "import resource, sys, pathlib\n"
        "from sdcorr.errors import BadOutput\n"
        "from sdcorr.shards import Shard\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))\n"
        'line = b\'{"pair":"b","keypoint":"0","error":1}\\n\'\n'
        "try:\n"
        "    with Shard(pathlib.Path(sys.argv[1]), 'x', {}) as shard:\n"
        "        for _ in range(100): shard.write(line)\n"
        "except BadOutput as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert "File too large; what was done before is kept" in done.stdout
    content = (tmp_path / "x.jsonl").read_bytes()
    assert len(content) == 500
    assert all(json.loads(line) for line in content.split(b"\n")[:-1])
    assert written([tmp_path / "x.jsonl"], LENGTHS) == set()  # twelve lines of a pair of one


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    put(tmp_path / "file", b"")
    with pytest.raises(BadOutput, match="cannot make"), Shard(tmp_path / "file" / "x", "x", {}):
        pass
