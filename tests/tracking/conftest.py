import pytest


@pytest.fixture(autouse=True)
def _wandb_keeps_out_of_the_home(tmp_path, monkeypatch):
    for name in ("DATA", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / "home"))
