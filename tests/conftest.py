"""What all tests share: reproducible Hypothesis runs, and one Ray cluster for those that need it."""

from collections.abc import Iterator

import pytest
from hypothesis import settings

# Derandomised: the same commit gives the same verdict. No deadline: the first call of a kernel compiles it.
settings.register_profile("gnabm", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("gnabm")


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One local Ray cluster for the whole session; starting one takes longer than most tests."""
    import ray

    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()
