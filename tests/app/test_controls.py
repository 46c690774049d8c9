from omegaconf import OmegaConf

from lightning_sparse.app.controls import CONTROLS, with_controls


def test_missing_controls_are_appended_once():
    assert with_controls("gradual_pruning") == "gradual_pruning,dense,static,small_dense"
    assert with_controls("dense,rigl , static") == "dense,rigl,static,small_dense"
    assert with_controls(",".join(CONTROLS)) == ",".join(CONTROLS)
    assert with_controls("") == ",".join(CONTROLS)


def test_as_a_resolver_it_takes_a_list_written_out_or_referred_to():
    OmegaConf.register_new_resolver("controlled", with_controls, replace=True)
    config = OmegaConf.create({"methods": "rigl,set", "a": "${controlled:rigl,set}", "b": "${controlled:${methods}}"})
    assert config.a == config.b == "rigl,set,dense,static,small_dense"
