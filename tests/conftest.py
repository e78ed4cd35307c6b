import importlib.util
import random

import numpy as np
import pytest
import torch
import tyro
from hypothesis import HealthCheck, Phase, settings

torch.set_num_threads(1)
settings.register_profile(
    "exact",
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=25,
    phases=[Phase.explicit, Phase.generate],  # no shrinking: a failure that takes whole runs is told at once
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("exact")


@pytest.fixture(autouse=True, scope="session")
def tyro_puts_back_what_it_draws():
    """Where tyro sees pytest, its parser checks its cache at times that it draws from the global generator; rich draws once."""
    if importlib.util.find_spec("rich"):  # comes with an extra
        importlib.import_module("rich.style")
    parse = tyro.extras.subcommand_cli_from_dict

    def restoring(*args, **options):
        state = random.getstate()
        try:
            return parse(*args, **options)
        finally:
            random.setstate(state)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tyro.extras, "subcommand_cli_from_dict", restoring)
        yield


def global_states():
    kind, words, *rest = np.random.get_state()  # noqa: NPY002 - read to see that nobody uses it
    return random.getstate(), (kind, words.tobytes(), *rest), torch.get_rng_state().numpy().tobytes()


@pytest.fixture(autouse=True)
def global_randomness_is_untouched():
    before = global_states()
    yield
    assert global_states() == before, "the test or the code under test used a global random generator"


@pytest.fixture
def torch_threads():
    """Set torch's number of threads; put back after the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
