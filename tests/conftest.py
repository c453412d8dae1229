"""What several tests stand on."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def market() -> Path:
    """The folder of the real market, which lies beside the checkout on machines that have it."""
    folder = Path(__file__).resolve().parents[1].parent / "shared" / "market"
    if not (folder / "ashare_daily_2020_2025.parquet").is_file():
        pytest.skip(f"the real market is not on this machine: {folder} is missing")
    return folder
