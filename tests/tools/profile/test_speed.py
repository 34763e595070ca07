"""Throughput is measured in turns, on what was promised."""

import torch
from torch import nn

from focal_lab.tools.profile.measure import WARM_UPS, best_device, make_pass, measure_speed


def test_models_take_turns_and_each_round_starts_with_another() -> None:
    calls: list[str] = []
    passes = [lambda name=name: calls.append(name) for name in "abc"]
    speeds = measure_speed(passes, 8, rounds=3, least_seconds=0)
    assert "".join(calls) == "aabbcc" + "abc" + "bca" + "cab"
    assert [len(rounds) for rounds in speeds] == [3, 3, 3]
    assert min(map(min, speeds)) > 0


def test_short_passes_are_repeated_until_an_interval_lasts_long_enough() -> None:
    calls = []
    measure_speed([lambda: calls.append(1)], 1, rounds=1, least_seconds=0.01)
    assert len(calls) > WARM_UPS + 1


def test_inference_runs_in_eval_mode_without_gradients() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(12, 3)).train()
    graphs = []
    model.register_forward_hook(lambda module, inputs, output: graphs.append(output.requires_grad))
    make_pass(model, torch.zeros(2, 3, 2, 2), training=False)()
    assert graphs == [False]
    assert not model.training


def test_a_training_step_goes_backward_and_drops_its_gradients() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).eval()
    seen = []
    weight = model[1].weight
    weight.register_post_accumulate_grad_hook(lambda parameter: seen.append(parameter.grad.norm().item()))
    make_pass(model, torch.ones(2, 3, 2, 2), training=True)()
    assert model.training
    assert len(seen) == 1
    assert seen[0] > 0
    assert weight.grad is None


def test_the_device_is_a_gpu_if_there_is_one() -> None:
    assert best_device().type == ("cuda" if torch.cuda.is_available() else "cpu")
