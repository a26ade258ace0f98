"""Arrays that grow: the same chunks and entries as when they are written at once; scratch that loses nothing."""

import errno

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from gnabm.errors import StoreError
from graphs import appending
from graphs.appending import Appender
from graphs.scratch import Scratch


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(0, 70), min_size=1, max_size=12), st.sampled_from([8, 16]))
def test_parts_are_one_array_in_blocks(tmp_path_factory, lengths, block):
    folder = tmp_path_factory.mktemp("a") / "g"
    rng = np.random.default_rng(sum(lengths))
    parts = [rng.integers(0, 99, (n, 3)).astype(np.int16) for n in lengths]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(appending, "_PIECE", 32)
        made = Appender(folder, block)
        for part in parts:
            made.append("x/y", part)
            made.append_sizes("x/ends", part[:, 0])
        made.close({"gnabm": {"a": 1}})
    root = zarr.open_group(str(folder), mode="r")
    whole = np.concatenate(parts)
    np.testing.assert_array_equal(root["x/y"][...], whole)
    np.testing.assert_array_equal(root["x/ends"][...], np.concatenate([[0], np.cumsum(whole[:, 0])]))
    assert root["x/y"].chunks == (max(1, min(block, len(whole))), 3)
    assert root["x/ends"].dtype == np.int64
    assert dict(root.attrs) == {"gnabm": {"a": 1}}


def test_scratch_gives_back_what_was_put_behind_one_name_and_then_is_gone(tmp_path):
    scratch = Scratch(tmp_path / "s")
    scratch.append("a", np.arange(5, dtype=np.int32))
    scratch.append("a", np.arange(3, dtype=np.int32))
    assert scratch.read("a", np.int32).tolist() == [0, 1, 2, 3, 4, 0, 1, 2]
    assert scratch.read("a", np.int32, 4, 2).tolist() == [4, 0]
    assert scratch.read("a", np.int32, 4, 0).tolist() == scratch.read("b", np.int32).tolist() == []
    scratch.clear()
    assert list(tmp_path.iterdir()) == []


WORKER = np.dtype([("row", "<i4"), ("age", "u1"), ("free", "?")])


@given(st.lists(st.integers(0, 2**31 - 1), max_size=9), st.integers(1, 3))
def test_scratch_keeps_records_and_entries_with_gaps_between_as_they_are(tmp_path_factory, rows, step):
    scratch = Scratch(tmp_path_factory.mktemp("s") / "s")
    entries = np.zeros(len(rows), WORKER)
    entries["row"] = rows
    scratch.append("a", entries[::step])
    np.testing.assert_array_equal(scratch.read("a", WORKER), entries[::step])


@pytest.mark.parametrize("number", [1, 3, 1_000_000])
def test_a_full_device_refuses_few_entries_and_many_and_says_why(tmp_path, number):
    scratch = Scratch(tmp_path / "s")
    (tmp_path / "s" / "a").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as caught:
        scratch.append("a", np.zeros(number, np.int32))
    assert caught.value.errno == errno.ENOSPC


def test_scratch_that_lost_entries_is_refused(tmp_path):
    scratch = Scratch(tmp_path / "s")
    scratch.append("a", np.arange(5, dtype=np.int32))
    with pytest.raises(StoreError, match="expected 3 entries from entry 3 on, got 2"):
        scratch.read("a", np.int32, 3, 3)
    (tmp_path / "s" / "a").write_bytes(bytes(17))
    with pytest.raises(StoreError, match="expected 5 entries from entry 0 on, got 4"):
        scratch.read("a", np.int32)
    (tmp_path / "s" / "a").unlink()
    with pytest.raises(StoreError, match="expected 2 entries from entry 1 on, got 0"):
        scratch.read("a", np.int32, 1, 2)
