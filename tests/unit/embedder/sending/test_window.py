"""The window on a modelled TEI in virtual time: any speed, 1 to 64 embedders, and changes."""

import pytest

from embedder.sending.window import SLOW_START_SIDE_BY_SIDE, Answer, Window
from shared.tei.client import ServerTiming
from tests.support.tei_simulation import Phase, Simulation, Speed

SLOW = Speed(fixed_s=0.0, input_s=1.0, batch_inputs=4)  # a large model on a CPU
CPU = Speed(fixed_s=0.0, input_s=0.125, batch_inputs=4)  # MiniLM on two cores
ONNX = Speed(fixed_s=0.02, input_s=0.01, batch_inputs=8)
QUICK_CPU = Speed(fixed_s=0.001, input_s=0.00475, batch_inputs=4)
GPU = Speed(fixed_s=0.01, input_s=0.0004, batch_inputs=64, is_limited=False)
LARGE_GPU = Speed(fixed_s=0.002, input_s=0.00044, batch_inputs=32)
# 20,000 inputs/s.
FASTEST = Speed(fixed_s=0.001, input_s=0.00003, batch_inputs=64, is_limited=False)
# 20 inputs/s on a GPU.
LARGE_MODEL = Speed(fixed_s=0.02, input_s=0.05, batch_inputs=64, is_limited=False)

NAMES = {
    "1/s": SLOW, "8/s": CPU, "80/s": ONNX, "200/s": QUICK_CPU, "1,800/s": GPU, "2,000/s": LARGE_GPU,
    "20,000/s": FASTEST, "20/s unlimited": LARGE_MODEL,
}  # fmt: skip


def settled(speed: Speed, embedders: int, *, has_timing: bool = True) -> Phase:
    """What is seen after the start, over a time in which each embedder can get 30 inputs."""
    simulation = Simulation(speed, embedders, has_timing=has_timing)
    seconds = max(10.0, 30 * embedders / speed.inputs_per_s)
    simulation.run(seconds)
    return simulation.run(seconds)


def longest_queue_s(speed: Speed, phase: Phase) -> float:
    """250 ms, or two batches."""
    return max(0.25, 2 * (speed.batch_s if speed.is_limited else phase.batch_s))


@pytest.mark.parametrize("embedders", [1, 4, 16, 64])
@pytest.mark.parametrize("name", NAMES)
def test_tei_is_busy_and_its_queue_short_at_any_speed(name: str, embedders: int) -> None:
    speed = NAMES[name]
    phase = settled(speed, embedders)
    # 64 embedders at one input a second have a turn a minute: what one of them sees is old when it
    # sees the next.
    assert phase.busy >= (0.95 if embedders / speed.inputs_per_s < 60 else 0.85)
    # More embedders than inputs in a second pause between requests, and arrive at the server at
    # random.
    slack = 1.3 if embedders < 64 else 2.0 if embedders / speed.inputs_per_s < 60 else 5.0
    assert phase.queue_p95_s <= slack * longest_queue_s(speed, phase)


@pytest.mark.parametrize("embedders", [4, 16, 64])
@pytest.mark.parametrize("name", [name for name in NAMES if name not in {"20/s unlimited", "1/s"}])
def test_embedders_share_fairly(name: str, embedders: int) -> None:
    # Rare turns measure little; at the highest speed the permits end before the queue is long
    # enough to say anything.
    is_hard = embedders / NAMES[name].inputs_per_s > 4 or (name == "20,000/s" and embedders == 64)
    floor = 0.65 if is_hard else 0.85
    assert settled(NAMES[name], embedders).fairness >= floor


@pytest.mark.parametrize("speed", [GPU, LARGE_GPU, QUICK_CPU, FASTEST])
def test_one_embedder_alone_gets_nearly_all_that_the_server_can_give(speed: Speed) -> None:
    assert settled(speed, 1).inputs_per_s >= 0.9 * speed.inputs_per_s


@pytest.mark.parametrize("speed", [CPU, QUICK_CPU, GPU, FASTEST])
def test_a_server_that_slows_down_to_a_third_and_recovers_is_followed_within_seconds(
    speed: Speed,
) -> None:
    simulation = Simulation(speed, 2)
    simulation.run(20)
    simulation.slowness = 3.0
    simulation.run(max(3.0, 20 / speed.inputs_per_s))
    slow = simulation.run(10)
    assert slow.busy >= 0.95
    assert slow.queue_p95_s <= max(0.25, 3 * 2 * speed.batch_s)
    simulation.slowness = 1.0
    simulation.run(3)
    fast = simulation.run(10)
    assert fast.busy >= 0.95
    assert fast.inputs_per_s >= 0.85 * speed.inputs_per_s


@pytest.mark.parametrize("speed", [CPU, QUICK_CPU, GPU])
def test_those_that_join_get_their_share_within_seconds_and_what_they_leave_is_taken_up(
    speed: Speed,
) -> None:
    simulation = Simulation(speed, 1)
    simulation.run(20)
    simulation.join()
    simulation.join()
    joining = simulation.run(10)
    assert joining.queue_p95_s <= longest_queue_s(speed, joining)
    assert simulation.run(15).fairness >= 0.9
    simulation.leave(2)
    simulation.run(3)
    alone = simulation.run(10)
    assert alone.busy >= 0.95
    assert alone.inputs_per_s >= 0.85 * speed.inputs_per_s


@pytest.mark.parametrize("speed", [QUICK_CPU, GPU, LARGE_GPU])
def test_a_window_that_has_settled_does_not_oscillate(speed: Speed) -> None:
    simulation = Simulation(speed, 4)
    simulation.run(15)
    sums = [sum(simulation.run(0.25).windows) for _ in range(40)]
    assert max(sums) <= 1.5 * min(sums)


def test_permits_that_run_out_are_shared_and_few_requests_are_refused() -> None:
    phase = settled(FASTEST, 4)
    answered = phase.inputs_per_s * 20 / 32  # since the start
    assert phase.refused <= 0.02 * answered
    assert phase.busy >= 0.99


@pytest.mark.parametrize("speed", [CPU, QUICK_CPU, GPU, FASTEST])
def test_without_timings_answer_times_keep_the_queue_short_too(speed: Speed) -> None:
    phase = settled(speed, 1, has_timing=False)
    assert phase.busy >= 0.95
    assert phase.queue_p95_s <= 1.5 * longest_queue_s(speed, phase)


def answer(
    inputs: int,
    duration_s: float,
    queue_s: float = 0.0,
    inference_s: float = 0.1,
    in_flight: int = 100,
) -> Answer:
    timing = ServerTiming(queue_s=queue_s, inference_s=inference_s)
    return Answer(
        inputs=inputs,
        tokens=200 * inputs,
        duration_s=duration_s,
        in_flight=in_flight,
        timing=timing,
    )


def grown() -> Window:
    window = Window(largest_request=32, ceiling=1000)
    for _ in range(200):
        window.answered(answer(window.request_inputs, 0.1, in_flight=window.inputs))
    return window


def test_without_a_queue_the_window_grows_to_its_ceiling_in_full_requests() -> None:
    window = grown()
    assert window.inputs == 1000
    assert window.request_inputs == 32


def test_a_window_that_is_not_used_does_not_grow() -> None:
    window = Window(largest_request=32, ceiling=1000)
    for _ in range(20):
        window.answered(answer(1, 0.1, in_flight=window.inputs))
    used = window.inputs
    for _ in range(1000):
        window.answered(answer(1, 0.1, in_flight=1))
    settled = window.inputs
    for _ in range(1000):
        window.answered(answer(1, 0.1, in_flight=1))
    assert window.inputs == settled <= SLOW_START_SIDE_BY_SIDE * used


def test_a_burst_finds_room_for_a_multiple_of_what_was_in_flight_before() -> None:
    window = Window(largest_request=32, ceiling=1000)
    for _ in range(100):
        window.answered(answer(1, 0.1, in_flight=25))
    assert window.inputs > 50


def test_a_request_takes_the_server_half_a_second_at_most() -> None:
    window = grown()
    for _ in range(2000):
        inputs = window.request_inputs
        window.answered(answer(inputs, inputs * 0.125, inference_s=0.5, in_flight=window.inputs))
    assert 3 <= window.request_inputs <= 5
    for _ in range(2000):
        window.answered(answer(window.request_inputs, 2.0 * window.request_inputs, inference_s=2.0))
    assert window.request_inputs == 1


def test_a_refusal_shrinks_the_window_once_for_a_round_trip() -> None:
    window = grown()
    window.refused(now=10.0, duration_s=0.1)
    after_one = window.inputs
    assert after_one == 800
    window.refused(now=10.05, duration_s=0.1)
    assert window.inputs == after_one
    window.refused(now=10.2, duration_s=0.1)
    assert window.inputs < after_one


def test_after_a_refusal_the_window_grows_by_few_inputs_at_a_time() -> None:
    window = grown()
    window.refused(now=10.0, duration_s=0.1)
    for _ in range(window.inputs // 32):
        window.answered(answer(32, 0.1, in_flight=window.inputs))
    assert 800 < window.inputs <= 802


def test_a_failure_halves_the_window_and_leaves_one_input() -> None:
    window = grown()
    window.failed(now=10.0, duration_s=0.1)
    assert window.inputs == 500
    for second in range(11, 40):
        window.failed(now=float(second), duration_s=0.1)
    assert window.inputs == 1
    assert window.pause_s == 0.0


def test_behind_a_long_queue_of_others_the_process_pauses_between_requests() -> None:
    window = Window(largest_request=32, ceiling=1000, batch_inputs=4)
    for _ in range(30):
        window.answered(answer(1, 20.5, queue_s=20.0, inference_s=0.5, in_flight=1))
    assert window.inputs == 1
    assert window.pause_s > 1


def test_a_server_that_takes_seconds_for_one_input_alone_is_kept_busy() -> None:
    window = Window(largest_request=32, ceiling=1000, batch_inputs=4)
    for _ in range(50):
        window.answered(answer(1, 4.0, queue_s=0.0, inference_s=4.0, in_flight=1))
    assert window.inputs >= 1
    assert window.pause_s == 0.0
