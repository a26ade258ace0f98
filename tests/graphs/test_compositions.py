from types import SimpleNamespace

import numpy as np
import pytest

from gnabm.errors import DataError
from graphs import compositions
from graphs.sources import load_country


def test_tables_that_the_weights_cannot_meet_are_refused(monkeypatch):
    gave_up = SimpleNamespace(success=False, x=np.zeros(52), nit=200, message="maximum number of iterations")
    monkeypatch.setattr(compositions, "minimize", lambda *_, **__: gave_up)
    with pytest.raises(
        DataError, match=r"New Zealand: no household weights .* after 200 steps.*; check household_size"
    ):
        compositions.fit(load_country("New Zealand"))
