"""The README's programs run and print what it says they print."""

import contextlib
import io
import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
PROGRAMS = re.findall(r"```python\n(.*?)```\s+```text\n(.*?)```", README.read_text(), flags=re.DOTALL)


@pytest.mark.parametrize(("program", "printed"), PROGRAMS, ids=["first example", "own model"])
def test_program_prints_what_the_readme_says(program, printed):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(program, "README.md", "exec"), {"__name__": "readme"})
    assert out.getvalue().rstrip() == printed.rstrip()


def test_own_model_has_at_most_40_lines():
    assert len(PROGRAMS[1][0].splitlines()) <= 40
