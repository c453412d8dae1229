"""What /metrics can show."""

from collections.abc import Mapping

import pytest

from tests.deploy.asked import ENDS, OWN, families


@pytest.fixture(scope="session")
def series() -> Mapping[str, set[str]]:
    """Series -> the labels that it has."""
    found = {}
    for name, kind, _, labels in families():
        for end in ENDS[kind]:
            more = {"le"} if end == "_bucket" else set[str]()
            found[name.removesuffix("_total") + end] = {*labels, *more, *OWN}
    return found
