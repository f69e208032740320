from collections.abc import Iterator
from functools import partial

import pytest
import torch

from detkit.compare import results, statistics


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Many small operations: on a busy machine a second thread makes them ten times slower."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests to which the width of an interval is all the same."""
    monkeypatch.setattr(results, "analyse", partial(statistics.analyse, resamples=40))
