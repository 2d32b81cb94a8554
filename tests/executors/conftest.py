"""A small Ray cluster for the tests of the executor."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def cluster(request: pytest.FixtureRequest) -> Iterator[None]:
    ray = pytest.importorskip("ray")
    # Ray makes its workers give way to everything else on the machine, which a busy one makes them do for ever.
    quick = {"worker_niceness": 0}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False, _system_config=quick)
    ray.cloudpickle.register_pickle_by_value(request.module)
    yield
    ray.shutdown()
