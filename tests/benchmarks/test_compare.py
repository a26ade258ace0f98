import subprocess

import pytest

from benchmarks import compare
from benchmarks.compare import Compared, Once, Unmeasured


def pairs(*seconds, result=1):
    return tuple((Once(r, 2.0, 1), Once(t, 1.0, result)) for r, t in seconds)


def test_the_ratio_is_the_median_over_pairs_so_a_slow_moment_of_the_machine_does_not_count():
    found = Compared("sir", pairs((1.0, 0.5), (10.0, 5.0), (1.0, 3.0)))
    assert found.ratios == [0.5, 0.5, 3.0]
    assert found.cells() == ["sir", "1.00", "3.00", "0.50", "0.50", "3.00", "0.50", "same"]


def test_another_result_is_told():
    assert Compared("sir", pairs((1.0, 1.0), result=2)).cells()[-1] == "differs"


def test_measurements_alternate(tmp_path):
    asked = []

    def once(root):
        asked.append(root)
        return Once(1.0, 1.0, None)

    assert len(compare.compare("case", once, tmp_path, 2).pairs) == 2
    assert asked == [tmp_path, compare.ROOT] * 2


def test_a_revision_that_is_not_there_is_told_and_fails_nothing(monkeypatch, capsys):
    with pytest.raises(Unmeasured, match="no-such-revision"):
        compare.files_of("no-such-revision")
    monkeypatch.setattr("sys.argv", ["compare", "no-such-revision"])
    compare.main()
    assert "not compared: there is no revision 'no-such-revision'" in capsys.readouterr().out


def test_a_revision_is_measured_with_its_own_code(tmp_path, monkeypatch):
    if subprocess.run(["git", "rev-parse", "HEAD"], cwd=compare.ROOT, capture_output=True, check=False).returncode:
        pytest.skip("not in a repository")
    monkeypatch.setattr(compare, "KEPT", tmp_path / "kept")
    for old in range(compare.MOST_KEPT + 1):
        (tmp_path / "kept" / str(old)).mkdir(parents=True)
    name, folder = compare.files_of("HEAD")  # asserts that its gnabm is what is imported there
    assert folder == tmp_path / "kept" / name
    assert (folder / "gnabm" / "configs" / "new_zealand.yaml").is_file()
    assert len(list((tmp_path / "kept").iterdir())) == compare.MOST_KEPT
