from benchmarks import page


def test_a_section_is_replaced_and_the_others_stay():
    text = page.replaced("", page.EDGES, "edges, first")
    text = page.replaced(text, page.SIR, "### 1,000 agents\n\n| a | b |")
    text = page.replaced(text, page.EDGES, "edges, again")
    assert page.section(text, page.EDGES) == "edges, again"
    assert page.section(text, page.SIR) == "### 1,000 agents\n\n| a | b |"
    assert "first" not in text


def test_sections_stand_in_their_order_whatever_was_measured_first():
    text = ""
    for title in (*reversed(page.SECTIONS), "Something else"):
        text = page.replaced(text, title, title.lower())
    at = [text.index(f"## {title}\n") for title in (*page.SECTIONS, "Something else")]
    assert at == sorted(at)


def test_a_page_written_twice_is_the_same_page():
    text = page.replaced(page.replaced("", page.SCALE, "x"), page.TOOLS, "y")
    assert page.replaced(text, page.SCALE, "x") == text


def test_nothing_is_written_where_no_page_is_named(tmp_path, capsys):
    page.keep(page.SIR, "body", None)
    assert "body" in capsys.readouterr().out
    page.keep(page.SIR, "body", tmp_path / "RESULTS.md")
    assert page.section((tmp_path / "RESULTS.md").read_text(), page.SIR) == "body"


def test_the_kept_page_has_only_sections_that_a_benchmark_writes():
    text = page.RESULTS.read_text()
    titles = [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]
    assert set(titles) <= set(page.SECTIONS)
