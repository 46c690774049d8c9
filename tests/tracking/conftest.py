import pytest
import wandb


@pytest.fixture(autouse=True)
def _wandb_keeps_out_of_the_home(tmp_path, monkeypatch):
    for name in ("DATA", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / "home"))


@pytest.fixture(autouse=True, scope="module")
def _no_service_for_others():
    """W&B's service is found through the environment: commands that later tests run would send it their runs."""
    yield
    wandb.teardown()
